// The gated feed-forward block.
#include "nn/mlp.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/record_function.h>

#include <algorithm>

#include "nn/cpu/kernels.h"

namespace omni {
at::Tensor silu_mul(const at::Tensor& gate, const at::Tensor& up) {
  if (!gate.is_cpu()) return silu_mul_plain(gate, up);
  RECORD_FUNCTION("omni::silu_mul", std::vector<c10::IValue>({gate, up}));
  at::Tensor out = at::empty_like(gate);
  const int64_t width = gate.size(1);
  const cpu::TypedKernels& kernels = cpu::kernels().typed(gate.scalar_type());
  constexpr int64_t kElementsPerThread = 16 * 1024;
  const int64_t grain = std::max<int64_t>(1, kElementsPerThread / width);
  at::parallel_for(0, gate.size(0), grain, [&](int64_t begin, int64_t end) {
    kernels.silu_mul(gate.const_data_ptr(), up.const_data_ptr(), out.mutable_data_ptr(), width, begin, end);
  });
  return out;
}

at::Tensor silu_mul_plain(const at::Tensor& gate, const at::Tensor& up) { return at::silu(gate) * up; }

GatedMlp::GatedMlp(const WeightPath& path, int64_t hidden, int64_t intermediate)
    : gate_proj_(path / "gate_proj", hidden, intermediate, /*bias=*/false),
      up_proj_(path / "up_proj", hidden, intermediate, /*bias=*/false),
      down_proj_(path / "down_proj", intermediate, hidden, /*bias=*/false) {}

at::Tensor GatedMlp::prefill(const at::Tensor& x, const at::Tensor& residual) const {
  return residual + down_proj_.forward(silu_mul(gate_proj_.forward(x), up_proj_.forward(x)));
}

at::Tensor GatedMlp::decode(const at::Tensor& x, const at::Tensor& residual) const {
  const std::vector<at::Tensor> gate_up = linear_decode(x, {&gate_proj_, &up_proj_});
  return linear_decode(silu_mul(gate_up[0], gate_up[1]), down_proj_, residual);
}

}  // namespace omni
