// Adaptive layer norm by the row kernel or by libtorch.
#include "nn/ada_norm.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <vector>

#include "nn/cpu/generation.h"

namespace omni {
namespace {

// y and gate may be undefined.
at::Tensor by_kernel(const at::Tensor& x, const at::Tensor& y, const at::Tensor& gate,
                     const at::Tensor& scale, const at::Tensor& shift, double eps) {
  const auto kernel = cpu::generation_kernels().ada_norm;
  at::Tensor out = at::empty_like(x);
  const int64_t width = x.size(-1);
  cpu::AdaNormArgs args;
  // Written only if there is something to add.
  args.x = const_cast<float*>(x.const_data_ptr<float>());
  args.y = y.defined() ? y.const_data_ptr<float>() : nullptr;
  args.gate = gate.defined() ? gate.const_data_ptr<float>() : nullptr;
  args.scale = scale.const_data_ptr<float>();
  args.shift = shift.const_data_ptr<float>();
  args.out = out.mutable_data_ptr<float>();
  args.width = width;
  args.eps = static_cast<float>(eps);
  constexpr int64_t kElementsPerThread = 16 * 1024;
  at::parallel_for(0, x.numel() / width, std::max<int64_t>(1, kElementsPerThread / width),
                   [&](int64_t begin, int64_t end) { kernel(args, begin, end); });
  return out;
}

}  // namespace

at::Tensor ada_layer_norm(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& shift, double eps) {
  if (!x.is_cpu()) return ada_layer_norm_plain(x, scale, shift, eps);
  RECORD_FUNCTION("omni::ada_layer_norm", std::vector<c10::IValue>({x, scale, shift}));
  return by_kernel(x, {}, {}, scale, shift, eps);
}

at::Tensor gated_add_ada_layer_norm(at::Tensor& x, const at::Tensor& y, const at::Tensor& gate,
                                    const at::Tensor& scale, const at::Tensor& shift, double eps) {
  if (!x.is_cpu()) return gated_add_ada_layer_norm_plain(x, y, gate, scale, shift, eps);
  RECORD_FUNCTION("omni::gated_add_ada_layer_norm", std::vector<c10::IValue>({x, y, gate, scale, shift}));
  return by_kernel(x, y, gate, scale, shift, eps);
}

at::Tensor ada_layer_norm_plain(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& shift,
                                double eps) {
  return at::layer_norm(x, {x.size(-1)}, {}, {}, eps).mul_(scale).add_(shift);
}

at::Tensor gated_add_ada_layer_norm_plain(at::Tensor& x, const at::Tensor& y, const at::Tensor& gate,
                                          const at::Tensor& scale, const at::Tensor& shift, double eps) {
  x.addcmul_(y, gate);
  return ada_layer_norm_plain(x, scale, shift, eps);
}

}  // namespace omni
