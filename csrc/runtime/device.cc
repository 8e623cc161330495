// Parsing device names and opening CUDA on demand.
#include "runtime/device.h"

#include <ATen/Context.h>
#include <dlfcn.h>

#include <charconv>
#include <exception>
#include <mutex>
#include <optional>

#include "status.h"

namespace omni {
namespace {

// The outcome of opening CUDA, which is tried once in a process.
struct CUDAState {
  int64_t devices = 0;
  std::string error;  // why there are none
};

std::mutex mutex;
std::optional<CUDAState> cuda_state;  // guarded by mutex

// libtorch asks for CUDA through a table that its CUDA library fills when it is loaded, and remembers the first
// answer: the library must be open before the first question.
CUDAState open_cuda() {
  if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    const char* reason = dlerror();
    return {
        0, std::string("libtorch's CUDA part cannot be opened: ") + (reason == nullptr ? "unknown" : reason)};
  }
  try {
    if (!at::hasCUDA())
      return {0, "libtorch's CUDA part did not register (was CUDA asked for before it was opened?)"};
    const auto devices = static_cast<int64_t>(at::getNumGPUs());
    return {devices, devices == 0 ? "no CUDA device is visible (is an NVIDIA driver installed?)" : ""};
  } catch (const c10::Error& error) {
    return {0, error.what_without_backtrace()};
  } catch (const std::exception& error) {
    return {0, error.what()};
  }
}

// The N of "cuda:N", 0 for "cuda"; nothing if name is neither.
std::optional<int64_t> cuda_index(const std::string& name) {
  constexpr std::string_view kPrefix = "cuda:";
  if (name == "cuda") return 0;
  if (name.compare(0, kPrefix.size(), kPrefix) != 0) return std::nullopt;
  const char* begin = name.data() + kPrefix.size();
  const char* end = name.data() + name.size();
  c10::DeviceIndex index = 0;  // 8 bits: what at::Device holds
  const auto [rest, error] = std::from_chars(begin, end, index);
  if (error != std::errc() || rest != end || begin == end || index < 0) return std::nullopt;
  return index;
}

}  // namespace

at::Device open_device(const std::string& name) {
  if (name == "cpu") return at::Device(at::kCPU);
  const std::optional<int64_t> index = cuda_index(name);
  if (!index.has_value()) {
    throw Error(OMNI_INVALID_ARGUMENT, "device \"" + name + "\": expected \"cpu\", \"cuda\" or \"cuda:N\"");
  }
  const std::lock_guard lock(mutex);
  if (!cuda_state.has_value()) cuda_state = open_cuda();
  if (!cuda_state->error.empty()) {
    throw Error(OMNI_FAILED_PRECONDITION, "device \"" + name + "\": " + cuda_state->error);
  }
  if (*index >= cuda_state->devices) {
    throw Error(OMNI_FAILED_PRECONDITION, "device \"" + name + "\": this machine has " +
                                              std::to_string(cuda_state->devices) + " CUDA devices");
  }
  return at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(*index));
}

nlohmann::json cuda_info() {
  const std::lock_guard lock(mutex);
  nlohmann::json info = {{"opened", false}, {"devices", 0}};
  if (!cuda_state.has_value()) return info;
  info["opened"] = cuda_state->error.empty();
  info["devices"] = cuda_state->devices;
  if (!cuda_state->error.empty()) info["error"] = cuda_state->error;
  return info;
}

}  // namespace omni
