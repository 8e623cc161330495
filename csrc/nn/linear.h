// Linear layers: y = x W^T + b, with the weights as the checkpoint holds them.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

#include <cstdint>
#include <vector>

#include "runtime/weights.h"

namespace omni {

// The weights of one layer. Must not move until loading has ended.
class Linear {
 public:
  // Binds "<path>.weight" [out, in] and, if bias, "<path>.bias" [out].
  Linear(const WeightPath& path, int64_t in, int64_t out, bool bias);
  // The same over given tensors; bias may be undefined.
  Linear(at::Tensor weight, at::Tensor bias);
  Linear(const Linear&) = delete;
  Linear& operator=(const Linear&) = delete;

  // x [..., in] -> [..., out] by libtorch's GEMM. The bits of a row depend on how many rows there are: for prefill and
  // for generation engines, which run one sequence at a time.
  at::Tensor forward(const at::Tensor& x) const;

  const at::Tensor& weight() const { return weight_; }  // [out, in]
  const at::Tensor& bias() const { return bias_; }      // [out] or undefined
  int64_t out_features() const { return weight_.size(0); }

 private:
  at::Tensor weight_;
  at::Tensor bias_;
};

// x [batch, in], contiguous -> one [batch, out] per layer, with one pass over the weights of all of them whatever the
// batch, and every row as if it were alone. For the tokens of a decode step.
std::vector<at::Tensor> linear_decode(const at::Tensor& x, c10::ArrayRef<const Linear*> layers);

// residual + layer(x), each sum rounded to the dtype. residual [batch, out], contiguous, or undefined for none.
at::Tensor linear_decode(const at::Tensor& x, const Linear& layer, const at::Tensor& residual);

// What linear_decode computes, by libtorch's ops: for devices without own kernels, and for tests. Not bitwise the same
// for every batch.
at::Tensor linear_decode_plain(const at::Tensor& x, const Linear& layer, const at::Tensor& residual);

}  // namespace omni
