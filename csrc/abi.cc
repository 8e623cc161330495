// C functions of buffers and of the runtime. Like all abi*.cc: argument checks and guard, nothing else.
#include "abi.h"

#include <ATen/Version.h>
#include <torch/version.h>

#include "runtime/cuda.h"
#include "runtime/torch_thread.h"

using omni::guard;
using omni::require;

const void* omni_buffer_data(const omni_buffer* buffer) {
  return buffer == nullptr ? "" : buffer->bytes.data();
}

size_t omni_buffer_size(const omni_buffer* buffer) { return buffer == nullptr ? 0 : buffer->bytes.size(); }

void omni_buffer_free(omni_buffer* buffer) { delete buffer; }

uint32_t omni_abi_version(void) { return OMNI_ABI_VERSION; }

omni_status* omni_runtime_init(const char* config, size_t config_size) {
  return guard([&] {
    constexpr int64_t kMaxThreads = 1024;
    const nlohmann::json document = omni::parse_argument(config, config_size, "runtime config");
    const omni::Config fields(&document, "runtime config");
    fields.reject_unknown({"threads", "cuda"});
    const int64_t threads = fields.integer("threads", 0);
    if (threads < 0 || threads > kMaxThreads) {
      fields.fail("\"threads\": expected 0 to " + std::to_string(kMaxThreads) + ", found " +
                  std::to_string(threads));
    }
    const bool cuda = fields.boolean("cuda", false);
    omni::init_torch_thread(threads);
    if (cuda) omni::open_cuda();
  });
}

omni_status* omni_runtime_info(omni_buffer** out) {
  return guard([&] {
    require(out != nullptr, "omni_runtime_info: out is NULL");
    omni::set_json(out, {{"torch", TORCH_VERSION},
                         {"abi", OMNI_ABI_VERSION},
                         {"compiler", __VERSION__},
                         {"cpu_capability", at::get_cpu_capability()},
                         {"threads", omni::torch_thread_count()},
                         {"cuda", omni::cuda_info()}});
  });
}

int64_t omni_runtime_live(const char* handle_class) { return omni::live_count(handle_class); }
