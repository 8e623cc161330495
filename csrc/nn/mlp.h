// The gated feed-forward block of the text models: down(silu(gate(x)) * up(x)).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "nn/linear.h"
#include "runtime/weights.h"

namespace omni {

// silu(gate) * up, rounded after each step as separate ops would. Both [rows, width], contiguous. A row's bits depend on
// that row only.
at::Tensor silu_mul(const at::Tensor& gate, const at::Tensor& up);
// The same by libtorch's ops.
at::Tensor silu_mul_plain(const at::Tensor& gate, const at::Tensor& up);

class GatedMlp {
 public:
  GatedMlp(const WeightPath& path, int64_t hidden, int64_t intermediate);

  // residual + mlp(x), both [tokens, hidden] of one sequence.
  at::Tensor prefill(const at::Tensor& x, const at::Tensor& residual) const;
  // The same for one token of each of batch sequences, every row as if it were alone.
  at::Tensor decode(const at::Tensor& x, const at::Tensor& residual) const;

 private:
  Linear gate_proj_;
  Linear up_proj_;
  Linear down_proj_;
};

}  // namespace omni
