// Adaptive layer norm of diffusion transformers: the time decides scale, shift and gate, the same for every row.
#pragma once

#include <ATen/core/Tensor.h>

namespace omni {

// layer_norm(x) * scale + shift, where scale already contains the 1 of (1 + scale). x: [..., width], float32;
// scale and shift: [width]. No weights of its own. All tensors are contiguous.
at::Tensor ada_layer_norm(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& shift, double eps);

// x += gate * y in place, then the adaptive layer norm of the new x.
at::Tensor gated_add_ada_layer_norm(at::Tensor& x, const at::Tensor& y, const at::Tensor& gate,
                                    const at::Tensor& scale, const at::Tensor& shift, double eps);

// The plain twins.
at::Tensor ada_layer_norm_plain(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& shift,
                                double eps);
at::Tensor gated_add_ada_layer_norm_plain(at::Tensor& x, const at::Tensor& y, const at::Tensor& gate,
                                          const at::Tensor& scale, const at::Tensor& shift, double eps);

}  // namespace omni
