// What all recorders share: their configuration, the order of calls, and the choice by name.
#include "profiler/recorder.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "cuda/cuda_recorder.h"
#include "profiler/call_sites.h"
#include "profiler/caller_sites.h"
#include "profiler/stream_recorder.h"
#include "profiler/torch_recorder.h"
#include "runtime/config.h"
#include "status.h"

namespace omni {
namespace {

// Whether a recorder of this process records: torch has one profiler per process, and two would see each other.
std::atomic<bool> recording{false};

using Factory = std::unique_ptr<Recorder> (*)(RecorderConfig config);

constexpr std::pair<const char*, Factory> kRecorders[] = {
    {"kineto", start_torch_recorder},
    {"stream", start_stream_recorder},
    {"cuda", start_cuda_recorder},
};

Factory factory_of(const Config& config, const std::string& name) {
  std::string known;
  for (const auto& [candidate, factory] : kRecorders) {
    if (name == candidate) return factory;
    known += (known.empty() ? "" : ", ") + std::string(candidate);
  }
  config.fail("\"recorder\": expected one of " + known + ", found \"" + name + "\"");
}

// Budgets and the ring.
void parse_limits(const Config& config, RecorderConfig& parsed) {
  for (const auto& [key, value] :
       {std::pair{"max_events", &parsed.max_events}, std::pair{"max_trace_bytes", &parsed.max_trace_bytes}}) {
    *value = config.integer(key, 0);
    if (*value < 0) {
      config.fail("\"" + std::string(key) + "\": expected 0 or more, found " + std::to_string(*value));
    }
  }
  parsed.ring_seconds = config.number("ring_seconds", 0);
  if (parsed.ring_seconds == 0) return;
  if (!(parsed.ring_seconds > 0)) {
    config.fail("\"ring_seconds\": expected 0 or more, found " + std::to_string(parsed.ring_seconds));
  }
  if (parsed.recorder != "stream") {
    config.fail("\"ring_seconds\": only the recorder stream has a ring, not " + parsed.recorder);
  }
  if (!parsed.trace_path.empty() || !parsed.table_path.empty()) {
    config.fail(
        "\"ring_seconds\": a ring writes no files but those of its dumps; leave trace_path and table_path "
        "out");
  }
}

}  // namespace

RecorderConfig RecorderConfig::parse(const nlohmann::json& json) {
  const Config config(&json, "recorder config");
  config.reject_unknown({"recorder",      "session",    "worker",     "stage",           "rank",
                         "world_size",    "trace_path", "table_path", "base_time_ns",    "detail",
                         "record_shapes", "with_stack", "with_flops", "with_memory",     "use_gzip",
                         "activities",    "metadata",   "max_events", "max_trace_bytes", "ring_seconds"});
  RecorderConfig parsed;
  parsed.recorder = config.string("recorder", parsed.recorder);
  factory_of(config, parsed.recorder);
  parsed.session = config.string("session");
  parsed.worker = config.string("worker");
  parsed.stage = config.integer("stage", parsed.stage);
  parsed.world_size = config.integer("world_size", parsed.world_size);
  parsed.rank = config.integer("rank", parsed.rank);
  if (parsed.rank < 0 || parsed.rank >= parsed.world_size) {
    config.fail("\"rank\": expected 0 to world_size - 1 = " + std::to_string(parsed.world_size - 1) +
                ", found " + std::to_string(parsed.rank));
  }
  parsed.trace_path = config.string("trace_path", "");
  parsed.table_path = config.string("table_path", "");
  parsed.base_time_ns = config.integer("base_time_ns", parsed.base_time_ns);
  const std::string detail = config.string("detail", "ops");
  if (detail != "ops" && detail != "modules") {
    config.fail("\"detail\": expected ops or modules, found \"" + detail + "\"");
  }
  parsed.modules_only = detail == "modules";
  parsed.record_shapes = config.boolean("record_shapes", parsed.record_shapes);
  parsed.with_stack = config.boolean("with_stack", parsed.with_stack);
  parsed.with_flops = config.boolean("with_flops", parsed.with_flops);
  parsed.with_memory = config.boolean("with_memory", parsed.with_memory);
  parsed.use_gzip = config.boolean("use_gzip", parsed.use_gzip);
  if (config.has("activities")) {
    for (const auto& activity : json["activities"]) {
      if (activity == "CUDA") {
        parsed.cuda = true;
      } else if (activity != "CPU") {
        config.fail("\"activities\": expected CPU or CUDA, found " + activity.dump());
      }
    }
  }
  if (config.has("metadata")) parsed.metadata = json["metadata"];
  parse_limits(config, parsed);
  return parsed;
}

RecorderConfig RecorderConfig::for_dump(const nlohmann::json& json) const {
  const Config config(&json, "recorder dump");
  config.reject_unknown({"session", "trace_path", "table_path", "base_time_ns", "metadata"});
  RecorderConfig dump = *this;
  dump.ring_seconds = 0;
  dump.session = config.string("session");
  dump.trace_path = config.string("trace_path", "");
  dump.table_path = config.string("table_path", "");
  dump.base_time_ns = config.integer("base_time_ns", 0);
  if (config.has("metadata")) dump.metadata = json["metadata"];
  return dump;
}

std::unique_ptr<Recorder> start_recorder(const nlohmann::json& json) {
  RecorderConfig config = RecorderConfig::parse(json);
  if (recording.exchange(true)) {
    throw Error(OMNI_FAILED_PRECONDITION,
                "cannot start session " + config.session + ": another recorder of this process is recording");
  }
  try {
    const Factory factory = factory_of(Config(&json, "recorder config"), config.recorder);
    return factory(std::move(config));
  } catch (...) {
    recording = false;
    throw;
  }
}

Recorder::Recorder(RecorderConfig config)
    : config_(std::move(config)), state_(State::kRecording), attached_(true) {
  want_call_sites(config_.with_stack);
}

Recorder::Recorder(RecorderConfig config, Stopped /*state*/)
    : config_(std::move(config)), state_(State::kStopped), attached_(false) {}

Recorder::~Recorder() {
  if (attached_) recording = false;
}

void Recorder::require_recording(const char* call) const {
  if (is_recording()) return;
  throw Error(OMNI_FAILED_PRECONDITION, std::string(call) + ": the recorder does not record");
}

void Recorder::step_begin(int64_t number) {
  require_recording("step_begin");
  if (step_open_) throw Error(OMNI_FAILED_PRECONDITION, "step_begin: the step before has not ended");
  on_step_begin(number);
  step_open_ = true;
}

void Recorder::step_end() {
  require_recording("step_end");
  if (!step_open_) throw Error(OMNI_FAILED_PRECONDITION, "step_end: no step has begun");
  on_step_end();
  step_open_ = false;
  ++steps_;
}

void Recorder::scope_begin(std::string_view name) {
  require_recording("scope_begin");
  if (scope_) throw Error(OMNI_FAILED_PRECONDITION, "scope_begin: the scope before has not ended");
  scope_ = std::make_unique<at::RecordFunction>(at::RecordScope::USER_SCOPE);
  if (scope_->isActive()) scope_->before(name);
}

void Recorder::scope_end() {
  require_recording("scope_end");
  if (!scope_) throw Error(OMNI_FAILED_PRECONDITION, "scope_end: no scope has begun");
  scope_.reset();
}

void Recorder::call_site(std::string_view name, std::string_view site) {
  require_recording("call_site");
  note_caller_site(name, site);
}

void Recorder::cut() {
  require_recording("cut");
  on_cut();
  state_ = State::kStopped;
}

void Recorder::on_cut() {
  throw Error(OMNI_UNIMPLEMENTED,
              "cut: recorder " + config_.recorder + " ends on the torch thread: call stop");
}

void Recorder::stop() {
  if (!attached_) require_recording("stop");
  const bool was_cut = !is_recording();
  attached_ = false;
  recording = false;
  want_call_sites(false);
  scope_.reset();
  if (was_cut) {
    on_detach();
    return;
  }
  state_ = State::kStopped;
  if (std::exchange(step_open_, false)) {
    on_step_end();
    ++steps_;
  }
  on_stop();
}

nlohmann::json Recorder::finish() {
  if (state_ != State::kStopped) {
    throw Error(OMNI_FAILED_PRECONDITION,
                state_ == State::kRecording ? "finish: the recorder still records" : "finish: called before");
  }
  state_ = State::kFinished;
  return on_finish();
}

std::unique_ptr<Recorder> Recorder::dump(const nlohmann::json& config) {
  require_recording("dump");
  if (config_.ring_seconds == 0) {
    throw Error(OMNI_FAILED_PRECONDITION,
                "dump: the recorder is no ring: it was started without ring_seconds");
  }
  return on_dump(config_.for_dump(config));
}

std::unique_ptr<Recorder> Recorder::on_dump(RecorderConfig /*config*/) {
  throw Error(OMNI_UNIMPLEMENTED, "dump: recorder " + config_.recorder + " has no ring");
}

}  // namespace omni
