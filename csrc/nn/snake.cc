#include "nn/snake.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "nn/cpu/generation.h"

namespace omni {
namespace {

constexpr int64_t kTaps = 12;
constexpr int64_t kRatio = 2;
constexpr int64_t kPiece = 4096;  // samples that one thread takes at once

// Sample 2m + p of the upsampled signal lies between x[m - 3 + p] and x[m + 2 + p], and every second tap, from the
// last or the one before it backwards, falls on them. Sample t of the result sees the upsampled ones from 2t - 5 on.
cpu::SnakeTaps polyphase_taps() {
  const at::Tensor filter = anti_alias_filter();
  const float* f = filter.const_data_ptr<float>();
  cpu::SnakeTaps taps;
  for (int k = 0; k < 6; ++k) {
    taps.up_even[k] = static_cast<float>(kRatio) * f[11 - 2 * k];
    taps.up_odd[k] = static_cast<float>(kRatio) * f[10 - 2 * k];
    taps.down_even[k] = f[2 * k + 1];
    taps.down_odd[k] = f[2 * k];
  }
  return taps;
}

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
  if (!x.is_cpu()) return anti_aliased_snake_plain(x, frequency, magnitude, pad);
  RECORD_FUNCTION("omni::anti_aliased_snake", std::vector<c10::IValue>({x, frequency, magnitude}));
  static const cpu::SnakeTaps taps = polyphase_taps();
  const auto kernel = cpu::generation_kernels().snake;
  const int64_t channels = x.size(0);
  const int64_t length = x.size(1);
  const int64_t width = length + 2 * pad;
  at::Tensor out = at::empty({channels, width}, x.options());
  const float* from = x.const_data_ptr<float>();
  const float* frequencies = frequency.const_data_ptr<float>();
  const float* magnitudes = magnitude.const_data_ptr<float>();
  float* to = out.mutable_data_ptr<float>();

  const int64_t pieces = (length + kPiece - 1) / kPiece;  // of each channel
  constexpr int64_t kElementsPerThread = 8 * 1024;
  const int64_t grain = std::max<int64_t>(1, kElementsPerThread / std::min(length, kPiece));
  at::parallel_for(0, channels * pieces, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t channel = i / pieces;
      const int64_t first = i % pieces * kPiece;
      const int64_t last = std::min(first + kPiece, length);
      float* row = to + channel * width;
      if (first == 0) std::fill(row, row + pad, 0.0F);
      if (last == length) std::fill(row + pad + length, row + width, 0.0F);
      kernel({from + channel * length, length, frequencies[channel], magnitudes[channel], row + pad}, taps,
             first, last);
    }
  });
  return out;
}

}  // namespace omni
