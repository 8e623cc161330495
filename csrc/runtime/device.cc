// Parsing device names.
#include "runtime/device.h"

#include <charconv>
#include <optional>
#include <string_view>

#include "runtime/cuda.h"
#include "status.h"

namespace omni {
namespace {

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
  const CudaState& cuda = open_cuda();
  if (cuda.devices == 0)
    throw Error(OMNI_FAILED_PRECONDITION, "device \"" + name + "\": no CUDA device: " + cuda.reason);
  if (*index >= cuda.devices) {
    throw Error(OMNI_FAILED_PRECONDITION, "device \"" + name + "\": no CUDA device: this machine has " +
                                              std::to_string(cuda.devices) + ", counted from 0");
  }
  return at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(*index));
}

}  // namespace omni
