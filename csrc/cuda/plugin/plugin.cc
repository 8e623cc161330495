// What libomni_cuda.so exports, and marks for tools that watch from outside.
#include <cuda_runtime_api.h>
#include <nvtx3/nvToolsExt.h>

#include <string>

#include "cuda/activity.h"
#include "cuda/plugin/cupti_collector.h"

// In a header of its own that few packages have.
extern "C" cudaError_t cudaProfilerStart(void);
extern "C" cudaError_t cudaProfilerStop(void);

namespace omni::cuda {
namespace {

std::string text_of(const char* call, cudaError_t result) {
  return result == cudaSuccess ? "" : std::string(call) + ": " + cudaGetErrorString(result);
}

// NVTX calls a tool that has put itself into the process, and returns at once where there is none.
class NvtxRanges final : public Ranges {
 public:
  void push(const char* name) noexcept override {
    nvtxEventAttributes_t attributes{};
    attributes.version = NVTX_VERSION;
    attributes.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
    attributes.messageType = NVTX_MESSAGE_TYPE_ASCII;
    attributes.message.ascii = name;
    nvtxDomainRangePushEx(domain_, &attributes);
  }
  void pop() noexcept override { nvtxDomainRangePop(domain_); }
  std::string start_tool() noexcept override { return text_of("cudaProfilerStart", cudaProfilerStart()); }
  std::string stop_tool() noexcept override { return text_of("cudaProfilerStop", cudaProfilerStop()); }

 private:
  nvtxDomainHandle_t domain_ = nvtxDomainCreateA("omni");
};

}  // namespace
}  // namespace omni::cuda

extern "C" __attribute__((visibility("default"))) const omni::cuda::Plugin* omni_cuda_plugin() {
  static auto* const ranges = new omni::cuda::NvtxRanges();
  static const omni::cuda::Plugin plugin = {omni::cuda::kPluginVersion, &omni::cuda::CuptiCollector::get(),
                                            ranges};
  return &plugin;
}
