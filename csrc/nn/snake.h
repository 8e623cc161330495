// The activation of BigVGAN vocoders: SnakeBeta between an up- and a downsampling filter, so that it adds no aliases.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace omni {

// What it does to x [channels, length], per channel: x grows to twice its rate through a 12-tap filter, becomes
// x + magnitude * sin^2(x * frequency), and shrinks back through the same filter. At the borders x, and later the
// activated signal, is continued by its first and last value.
// frequency and magnitude: float32 [channels]. Result [channels, length + 2 * pad] with pad zeros at both ends of each
// row, which is what the convolution that follows wants to see.
at::Tensor anti_aliased_snake(const at::Tensor& x, const at::Tensor& frequency, const at::Tensor& magnitude,
                              int64_t pad);

// The plain twin, on any device.
at::Tensor anti_aliased_snake_plain(const at::Tensor& x, const at::Tensor& frequency,
                                    const at::Tensor& magnitude, int64_t pad);

// The filter, float32 [12]: a Kaiser-windowed sinc of half the rate's band. Its sum is 1.
at::Tensor anti_alias_filter();

}  // namespace omni
