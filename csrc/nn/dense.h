// Linear layers of generation engines: many float32 rows of one sequence, so the GEMM's own speed decides.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "runtime/weights.h"

namespace omni {

enum class DenseActivation { kNone, kGeluTanh };

// activation(x W^T + b). x [..., in], weight [out, in] as the checkpoint holds it, bias [out].
// On the CPU this is oneDNN's matrix product with the activation inside it: torch's own linear calls MKL, which takes
// half the speed of the machine on processors that are not Intel's. The bits of a row depend on the number of rows.
at::Tensor dense(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                 DenseActivation activation = DenseActivation::kNone);

// The plain twin: torch's ops.
at::Tensor dense_plain(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                       DenseActivation activation = DenseActivation::kNone);

// The weights of one layer. It must not move between bind() and the end of loading.
struct DenseLayer {
  at::Tensor weight;  // [out, in]
  at::Tensor bias;    // [out]

  void bind(const WeightPath& path, int64_t in, int64_t out);
  at::Tensor forward(const at::Tensor& x, DenseActivation activation = DenseActivation::kNone) const;
};

}  // namespace omni
