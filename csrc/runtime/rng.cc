// Creating generators, and moving their state in and out.
#include "runtime/rng.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <string>

#include "status.h"

namespace omni {

Rng::Rng(uint64_t seed) : generator_(at::detail::createCPUGenerator(seed)) {}

Rng::Rng(const at::Tensor& state) : generator_(at::detail::createCPUGenerator()) {
  const int64_t expected = generator_.get_state().numel();
  if (!state.defined() || state.scalar_type() != at::kByte || state.dim() != 1 || state.numel() != expected) {
    const std::string found = state.defined() ? std::string(c10::toString(state.scalar_type())) + " of " +
                                                    std::to_string(state.numel()) + " elements"
                                              : "nothing";
    throw Error(OMNI_INVALID_ARGUMENT, "generator state: expected Byte of " + std::to_string(expected) +
                                           " elements in one dimension, found " + found);
  }
  try {
    generator_.set_state(state.cpu().contiguous());
  } catch (const c10::Error& error) {
    throw Error(OMNI_INVALID_ARGUMENT, std::string("generator state: ") + error.what_without_backtrace());
  }
}

at::Tensor Rng::state() const { return generator_.get_state().clone(); }

}  // namespace omni
