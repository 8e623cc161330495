// Root-mean-square normalisation.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "runtime/weights.h"

namespace omni {

// round(x / sqrt(mean(x^2) + eps)) * weight, in fp32 up to the rounding, as the Qwen models do. Must not move until
// loading has ended.
class RmsNorm {
 public:
  RmsNorm(const WeightPath& path, int64_t width, double eps);
  RmsNorm(at::Tensor weight, double eps);
  RmsNorm(const RmsNorm&) = delete;
  RmsNorm& operator=(const RmsNorm&) = delete;

  // x [rows, width], contiguous -> the same shape. A row's bits depend on that row only.
  at::Tensor forward(const at::Tensor& x) const;
  // The same by libtorch's ops.
  at::Tensor forward_plain(const at::Tensor& x) const;

 private:
  at::Tensor weight_;
  double eps_;
};

}  // namespace omni
