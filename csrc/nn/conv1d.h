// One-dimensional convolutions of vocoders: few channels, long rows, float32.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "runtime/weights.h"

namespace omni {

// out[o, t] = bias[o] + sum of weight[o, i, k] * x[i, t + k * dilation], a convolution of stride 1 over rows that carry
// their padding already. weight [out, in, kernel], bias [out] or undefined. Plain: by torch's ops.
at::Tensor conv1d_plain(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                        int64_t dilation);

// The same as a layer. [torch thread]
class Conv1d {
 public:
  Conv1d() = default;
  Conv1d(at::Tensor weight, at::Tensor bias, int64_t dilation);

  // Binds it to weights: it must not move until they are loaded.
  void bind(const WeightPath& path, int64_t in, int64_t out, int64_t kernel, int64_t dilation, bool has_bias);
  // Lays the weights out for the kernel. Once, when they are there.
  void prepare();

  // The zeros that keep the length, at each end of a row: (kernel - 1) * dilation / 2, for odd kernels.
  int64_t same_pad() const { return (kernel_ - 1) * dilation_ / 2; }

  // x [in, length + (kernel - 1) * dilation], contiguous -> [out, length].
  at::Tensor forward(const at::Tensor& x) const;
  // out += the same, in place.
  void add_to(at::Tensor& out, const at::Tensor& x) const;

 private:
  void run(const at::Tensor& x, at::Tensor& out, bool add) const;

  int64_t in_ = 0;
  int64_t out_ = 0;
  int64_t kernel_ = 0;
  int64_t dilation_ = 1;
  at::Tensor weight_;  // [out, in, kernel], until prepare() has packed it
  at::Tensor bias_;    // [out] or undefined
  at::Tensor packed_;  // for the kernel; undefined on devices that have none
};

// A transposed convolution that multiplies the rate by its stride. Every output sees the taps of one phase only, so it
// is `stride` ordinary convolutions whose results are interleaved. [torch thread]
class ConvTranspose1d {
 public:
  ConvTranspose1d() = default;
  // weight [in, out, kernel], kernel >= stride.
  ConvTranspose1d(at::Tensor weight, at::Tensor bias, int64_t stride);

  void bind(const WeightPath& path, int64_t in, int64_t out, int64_t kernel, int64_t stride);
  void prepare();

  // x [in, length] -> [out, out_length(length)].
  at::Tensor forward(const at::Tensor& x) const;
  // (length - 1) * stride - 2 * pad + kernel, where pad is (kernel - stride) / 2 rounded down.
  int64_t out_length(int64_t length) const;

 private:
  int64_t pad() const { return (kernel_ - stride_) / 2; }

  int64_t out_ = 0;
  int64_t kernel_ = 0;
  int64_t stride_ = 1;
  at::Tensor weight_;  // until prepare()
  at::Tensor bias_;
  Conv1d phases_;  // stride * out channels
};

}  // namespace omni
