// Root-mean-square normalisation by the row kernel or by libtorch.
#include "nn/norm.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <utility>

#include "nn/cpu/kernels.h"

namespace omni {
RmsNorm::RmsNorm(const WeightPath& path, int64_t width, double eps) : eps_(eps) {
  path.bind(weight_, "weight", {width});
}

RmsNorm::RmsNorm(at::Tensor weight, double eps) : weight_(std::move(weight)), eps_(eps) {}

at::Tensor RmsNorm::forward(const at::Tensor& x) const {
  if (!x.is_cpu()) return forward_plain(x);
  RECORD_FUNCTION("omni::rms_norm", std::vector<c10::IValue>({x, weight_}));
  at::Tensor out = at::empty_like(x);
  const int64_t width = x.size(1);
  const cpu::TypedKernels& kernels = cpu::kernels().typed(x.scalar_type());
  constexpr int64_t kElementsPerThread = 32 * 1024;
  const int64_t grain = std::max<int64_t>(1, kElementsPerThread / width);
  at::parallel_for(0, x.size(0), grain, [&](int64_t begin, int64_t end) {
    kernels.rms_norm(x.const_data_ptr(), weight_.const_data_ptr(), out.mutable_data_ptr(), width,
                     static_cast<float>(eps_), begin, end);
  });
  return out;
}

at::Tensor RmsNorm::forward_plain(const at::Tensor& x) const {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor variance = wide.pow(2).mean(-1, /*keepdim=*/true);
  return weight_ * (wide * at::rsqrt(variance + eps_)).to(x.scalar_type());
}

}  // namespace omni
