// Opens CUDA: driver, libtorch's CUDA part and this project's own second library, in the only order that works.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "cuda/activity.h"

namespace omni {

// What opening has found. Each step needs the one before; reason says where it ended.
struct CudaState {
  bool driver = false;         // libcuda.so.1 is there and answers
  int64_t driver_version = 0;  // 13020 for 13.2
  int64_t driver_devices = 0;  // that the driver shows this process
  std::string library;         // path of libtorch's CUDA part, opened or not; empty if there is none
  int64_t devices = 0;         // that libtorch can use
  std::string reason;          // why devices is 0; empty if it is not
  const cuda::Plugin* plugin = nullptr;  // libomni_cuda.so
  std::string plugin_reason;             // why there is none
};

// Opens what there is, once in a process; later calls return what the first one found. Any thread, but the first call
// comes before any question to libtorch about CUDA: libtorch remembers the answer. Needs no GPU and never throws.
//
// The driver comes first: every call of CUPTI, which libtorch_cpu.so has loaded already, recurses until it crashes where
// libcuda.so.1 is missing. So without a driver and a device nothing else is opened, which also keeps a worker on such a
// machine as small as one built without CUDA.
const CudaState& open_cuda();

// What open_cuda() has found so far; opens nothing, so it is cheap:
// {"opened":bool,"driver":bool,"driver_version":N,"library":"...","devices":N,"plugin":bool,"reason":"...",
// "plugin_reason":"..."}. opened is false, and only devices there besides it, while nobody has called open_cuda().
nlohmann::json cuda_info();

// The second library. Throws FAILED_PRECONDITION that says what is missing; purpose begins the text.
const cuda::Plugin& require_cuda_plugin(const std::string& purpose);

}  // namespace omni
