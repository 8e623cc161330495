// Where tensors live. The only place that turns a user's word into a device.
#pragma once

#include <c10/core/Device.h>

#include <string>

namespace omni {

// "cpu", "cuda" (the first one) or "cuda:N". Throws INVALID_ARGUMENT for anything else, and FAILED_PRECONDITION that
// says what is missing (libraries, driver, the Nth device) when the machine cannot serve it. A CUDA device opens CUDA
// (runtime/cuda.h), which a process on the CPU never does unless it was asked to at its start. [torch thread]
at::Device open_device(const std::string& name);

}  // namespace omni
