// Where tensors live. The only place that turns a user's word into a device and that opens CUDA.
#pragma once

#include <c10/core/Device.h>

#include <nlohmann/json.hpp>
#include <string>

namespace omni {

// "cpu", "cuda" (the first one) or "cuda:N". Throws INVALID_ARGUMENT for anything else, and FAILED_PRECONDITION that
// says what is missing (libraries, driver, the Nth device) when the machine cannot serve it. The first call for a
// CUDA device opens libtorch's CUDA part, which a process on the CPU never loads. [torch thread]
at::Device open_device(const std::string& name);

// What open_device has found out about CUDA so far; looks at nothing itself, so it is cheap and opens no library:
// {"opened":bool,"devices":N,"error":"..."}. error is there if opening was tried and failed.
nlohmann::json cuda_info();

}  // namespace omni
