// Normal random numbers of which nobody knows yet how many it will be.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "runtime/rng.h"

namespace omni {

// The values of one at::randn({total}) on the CPU, given out piece by piece before the total is known. torch makes such
// a tensor in groups of 16 values, each of 16 draws, so what comes first does not depend on the length; but where the
// length is no multiple of 16 it draws the last 16 values (of a shorter tensor: all) anew. [torch thread]
class NormalStream {
 public:
  explicit NormalStream(Rng rng);

  // The next values, float32 [count].
  at::Tensor next(int64_t count);

  // Ends the stream: what torch has at the end of a tensor of this length, in place of as many of the values given out.
  // Empty if those are right, as they are where the total is a multiple of 16.
  at::Tensor ending();

 private:
  Rng rng_;
  at::Tensor spare_;       // drawn and not given out, less than a group
  at::Tensor last_group_;  // the generator's state before the last group
  int64_t total_ = 0;      // given out
};

}  // namespace omni
