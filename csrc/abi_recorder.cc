// C functions of recorders.
#include "abi.h"
#include "profiler/recorder.h"
#include "runtime/torch_thread.h"

using omni::guard;
using omni::require;

omni_status* omni_recorder_start(const char* config, size_t config_size, omni_recorder** out) {
  return guard([&] {
    omni::require_torch_thread();
    require(out != nullptr, "omni_recorder_start: out is NULL");
    auto handle = std::make_unique<omni_recorder>();
    handle->recorder = omni::start_recorder(omni::parse_argument(config, config_size, "recorder config"));
    *out = handle.release();
  });
}

omni_status* omni_recorder_step_begin(omni_recorder* recorder, int64_t number) {
  return guard([&] {
    omni::require_torch_thread();
    require(recorder != nullptr, "omni_recorder_step_begin: recorder is NULL");
    recorder->recorder->step_begin(number);
  });
}

omni_status* omni_recorder_step_end(omni_recorder* recorder) {
  return guard([&] {
    omni::require_torch_thread();
    require(recorder != nullptr, "omni_recorder_step_end: recorder is NULL");
    recorder->recorder->step_end();
  });
}

omni_status* omni_recorder_scope_begin(omni_recorder* recorder, const char* name, size_t name_size) {
  return guard([&] {
    omni::require_torch_thread();
    require(recorder != nullptr && name != nullptr, "omni_recorder_scope_begin: NULL argument");
    recorder->recorder->scope_begin(std::string_view(name, name_size));
  });
}

omni_status* omni_recorder_scope_end(omni_recorder* recorder) {
  return guard([&] {
    omni::require_torch_thread();
    require(recorder != nullptr, "omni_recorder_scope_end: recorder is NULL");
    recorder->recorder->scope_end();
  });
}

omni_status* omni_recorder_call_site(omni_recorder* recorder, const char* name, size_t name_size,
                                     const char* site, size_t site_size) {
  return guard([&] {
    omni::require_torch_thread();
    require(recorder != nullptr && name != nullptr && site != nullptr,
            "omni_recorder_call_site: NULL argument");
    recorder->recorder->call_site(std::string_view(name, name_size), std::string_view(site, site_size));
  });
}

omni_status* omni_recorder_cut(omni_recorder* recorder) {
  return guard([&] {
    require(recorder != nullptr, "omni_recorder_cut: recorder is NULL");
    recorder->recorder->cut();
  });
}

omni_status* omni_recorder_stop(omni_recorder* recorder) {
  return guard([&] {
    omni::require_torch_thread();
    require(recorder != nullptr, "omni_recorder_stop: recorder is NULL");
    recorder->recorder->stop();
  });
}

omni_status* omni_recorder_finish(omni_recorder* recorder, omni_buffer** out) {
  return guard([&] {
    require(recorder != nullptr && out != nullptr, "omni_recorder_finish: NULL argument");
    omni::set_json(out, recorder->recorder->finish());
  });
}

omni_status* omni_recorder_status(const omni_recorder* recorder, omni_buffer** out) {
  return guard([&] {
    require(recorder != nullptr && out != nullptr, "omni_recorder_status: NULL argument");
    omni::set_json(out, recorder->recorder->status().json());
  });
}

omni_status* omni_recorder_dump(omni_recorder* recorder, const char* config, size_t config_size,
                                omni_recorder** out) {
  return guard([&] {
    require(recorder != nullptr && out != nullptr, "omni_recorder_dump: NULL argument");
    auto handle = std::make_unique<omni_recorder>();
    handle->recorder = recorder->recorder->dump(omni::parse_argument(config, config_size, "recorder dump"));
    *out = handle.release();
  });
}

void omni_recorder_free(omni_recorder* recorder) { delete recorder; }
