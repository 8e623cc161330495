// One-dimensional convolutions of vocoders: few channels, long rows, float32.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "runtime/weights.h"

namespace omni {

// A convolution of stride 1 over rows that carry their padding already. Bound to weights when it is built, so it must
// not move until they are loaded. [torch thread]
class Conv1d {
 public:
  Conv1d() = default;

  void bind(const WeightPath& path, int64_t in, int64_t out, int64_t kernel, int64_t dilation, bool has_bias);
  // Lays the weights out for the kernel. Once, when they are loaded.
  void prepare();

  // The zeros that keep the length, at each end of a row: (kernel - 1) * dilation / 2, for odd kernels.
  int64_t same_pad() const { return (kernel_ - 1) * dilation_ / 2; }

  // x [in, length + (kernel - 1) * dilation] -> [out, length].
  at::Tensor forward(const at::Tensor& x) const;
  // out += the same, in place.
  void add_to(at::Tensor& out, const at::Tensor& x) const;

 private:
  friend class ConvTranspose1d;

  int64_t in_ = 0;
  int64_t out_ = 0;
  int64_t kernel_ = 0;
  int64_t dilation_ = 1;
  at::Tensor weight_;  // [out, in, kernel]
  at::Tensor bias_;    // [out] or undefined
};

// A transposed convolution that multiplies the rate by its stride. It is `stride` ordinary convolutions, one per phase
// of the output.
class ConvTranspose1d {
 public:
  ConvTranspose1d() = default;

  void bind(const WeightPath& path, int64_t in, int64_t out, int64_t kernel, int64_t stride);
  void prepare();

  // x [in, length] -> [out, (length - 1) * stride - 2 * pad + kernel], pad = (kernel - stride) / 2 rounded down.
  at::Tensor forward(const at::Tensor& x) const;
  int64_t out_length(int64_t length) const;

 private:
  int64_t in_ = 0;
  int64_t out_ = 0;
  int64_t kernel_ = 0;
  int64_t stride_ = 1;
  at::Tensor weight_;  // [in, out, kernel]
  at::Tensor bias_;
};

}  // namespace omni
