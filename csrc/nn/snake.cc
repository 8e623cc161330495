#include "nn/snake.h"

#include <ATen/ATen.h>

#include <cmath>
#include <numbers>

namespace omni {
namespace {

constexpr int64_t kTaps = 12;
constexpr int64_t kRatio = 2;

}  // namespace

at::Tensor anti_alias_filter() {
  const double cutoff = 0.5 / kRatio;
  const double half_width = 0.6 / kRatio;
  const double attenuation =
      2.285 * (static_cast<double>(kTaps / 2) - 1) * std::numbers::pi * 4 * half_width + 7.95;
  // Kaiser's fit of the window to the attenuation, for the range above 50 dB in which this one (51 dB) is.
  const double beta = 0.1102 * (attenuation - 8.7);
  const auto options = at::TensorOptions().dtype(at::kFloat);
  const at::Tensor window = at::kaiser_window(kTaps, /*periodic=*/false, beta, options);
  const at::Tensor times = at::arange(-kTaps / 2, kTaps / 2, options) + 0.5;
  const at::Tensor filter = 2 * cutoff * window * at::sinc(2 * cutoff * times);
  return filter / filter.sum();
}

at::Tensor anti_aliased_snake_plain(const at::Tensor& x, const at::Tensor& frequency,
                                    const at::Tensor& magnitude, int64_t pad) {
  const int64_t channels = x.size(0);
  const at::Tensor filter =
      anti_alias_filter().to(x.device()).view({1, 1, kTaps}).expand({channels, 1, kTaps});
  at::Tensor y = at::replication_pad1d(x.unsqueeze(0), {5, 5});
  y = kRatio * at::conv_transpose1d(y, filter, {}, kRatio, 0, 0, channels);
  y = y.narrow(2, 15, kRatio * x.size(1));
  y = y + magnitude.unsqueeze(1) * at::sin(y * frequency.unsqueeze(1)).square();
  y = at::conv1d(at::replication_pad1d(y, {5, 6}), filter, {}, kRatio, at::IntArrayRef{0}, 1, channels);
  return at::constant_pad_nd(y[0], {pad, pad});
}

at::Tensor anti_aliased_snake(const at::Tensor& x, const at::Tensor& frequency, const at::Tensor& magnitude,
                              int64_t pad) {
  return anti_aliased_snake_plain(x, frequency, magnitude, pad);
}

}  // namespace omni
