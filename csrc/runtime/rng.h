// A request's random numbers: torch's own CPU generator, so that draws equal those of Python's torch.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace omni {

// One generator per request: what else runs does not change its draws. Its state travels with the request from stage
// to stage, so that a pipeline of processes draws what a single process would. [torch thread]
class Rng {
 public:
  // As torch.manual_seed(seed) leaves Python's default generator.
  explicit Rng(uint64_t seed);
  // Goes on where another one stopped. state: what state() returned, or torch.get_rng_state() of the same torch
  // version; throws INVALID_ARGUMENT for anything else.
  explicit Rng(const at::Tensor& state);

  // uint8, as torch.get_rng_state() returns it. A copy.
  at::Tensor state() const;

  // For drawing: at::multinomial(probs, 1, false, rng.generator()), at::randn(shape, rng.generator(), options).
  at::Generator& generator() { return generator_; }

 private:
  at::Generator generator_;
};

}  // namespace omni
