#include "nn/ada_norm.h"

#include <ATen/ATen.h>

namespace omni {

at::Tensor ada_layer_norm(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& shift, double eps) {
  return ada_layer_norm_plain(x, scale, shift, eps);
}

at::Tensor gated_add_ada_layer_norm(at::Tensor& x, const at::Tensor& y, const at::Tensor& gate,
                                    const at::Tensor& scale, const at::Tensor& shift, double eps) {
  return gated_add_ada_layer_norm_plain(x, y, gate, scale, shift, eps);
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
