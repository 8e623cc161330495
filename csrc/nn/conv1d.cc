// Convolutions by the tile kernel or by libtorch.
#include "nn/conv1d.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "nn/cpu/generation.h"

namespace omni {
namespace {

// Rows are cut so that the part of x that a piece reads stays in a core's second-level cache while all output channels
// pass over it, and in multiples of what every kernel's tiles take.
constexpr int64_t kPieceFloats = 64 * 1024;
constexpr int64_t kPieceStep = 384;

int64_t piece_length(int64_t in, int64_t length) {
  const int64_t share = (length + at::get_num_threads() - 1) / at::get_num_threads();
  const int64_t wanted = std::min(std::max<int64_t>(kPieceFloats / in, kPieceStep), share);
  return (wanted + kPieceStep - 1) / kPieceStep * kPieceStep;
}

}  // namespace

at::Tensor conv1d_plain(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                        int64_t dilation) {
  return at::conv1d(x.unsqueeze(0), weight, bias, 1, at::IntArrayRef{0}, dilation)[0];
}

Conv1d::Conv1d(at::Tensor weight, at::Tensor bias, int64_t dilation)
    : in_(weight.size(1)),
      out_(weight.size(0)),
      kernel_(weight.size(2)),
      dilation_(dilation),
      weight_(std::move(weight)),
      bias_(std::move(bias)) {}

void Conv1d::bind(const WeightPath& path, int64_t in, int64_t out, int64_t kernel, int64_t dilation,
                  bool has_bias) {
  in_ = in;
  out_ = out;
  kernel_ = kernel;
  dilation_ = dilation;
  path.bind(weight_, "weight", {out, in, kernel});
  if (has_bias) path.bind(bias_, "bias", {out});
}

void Conv1d::prepare() {
  if (!weight_.is_cpu()) return;
  const at::Tensor dense = weight_.contiguous();
  const std::vector<float> packed = cpu::pack_conv_weight(dense.const_data_ptr<float>(), out_, in_, kernel_,
                                                          cpu::generation_kernels().conv_channels);
  packed_ = at::tensor(packed, dense.options());
  weight_.reset();
}

at::Tensor Conv1d::forward(const at::Tensor& x) const {
  if (!packed_.defined()) return conv1d_plain(x, weight_, bias_, dilation_);
  at::Tensor out = at::empty({out_, x.size(1) - (kernel_ - 1) * dilation_}, x.options());
  run(x, out, /*add=*/false);
  return out;
}

void Conv1d::add_to(at::Tensor& out, const at::Tensor& x) const {
  if (!packed_.defined()) {
    out.add_(conv1d_plain(x, weight_, bias_, dilation_));
  } else {
    run(x, out, /*add=*/true);
  }
}

void Conv1d::run(const at::Tensor& x, at::Tensor& out, bool add) const {
  const auto form_input = [this] { return std::vector<int64_t>{out_, kernel_, dilation_}; };
  RECORD_FUNCTION("omni::conv1d", std::vector<c10::IValue>({x, packed_, bias_, form_input()}));
  const auto kernel = cpu::generation_kernels().conv;
  cpu::ConvArgs args;
  args.x = x.const_data_ptr<float>();
  args.x_stride = x.size(1);
  args.in = in_;
  args.kernel = kernel_;
  args.dilation = dilation_;
  args.weight = packed_.const_data_ptr<float>();
  args.bias = bias_.defined() ? bias_.const_data_ptr<float>() : nullptr;
  args.out = out.mutable_data_ptr<float>();
  args.out_stride = out.size(1);
  args.out_channels = out_;
  args.add = add;
  const int64_t length = out.size(1);
  const int64_t piece = piece_length(in_, length);
  at::parallel_for(0, (length + piece - 1) / piece, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) kernel(args, i * piece, std::min((i + 1) * piece, length));
  });
}

ConvTranspose1d::ConvTranspose1d(at::Tensor weight, at::Tensor bias, int64_t stride)
    : out_(weight.size(1)),
      kernel_(weight.size(2)),
      stride_(stride),
      weight_(std::move(weight)),
      bias_(std::move(bias)) {}

void ConvTranspose1d::bind(const WeightPath& path, int64_t in, int64_t out, int64_t kernel, int64_t stride) {
  out_ = out;
  kernel_ = kernel;
  stride_ = stride;
  path.bind(weight_, "weight", {in, out, kernel});
  path.bind(bias_, "bias", {out});
}

void ConvTranspose1d::prepare() {
  // Output sample m * stride + r - pad is the sum over taps k = r + stride * q of x[m - q] * weight[k]: phase r is a
  // convolution with these taps in reverse. Taps beyond the kernel are zeros.
  const int64_t taps = (kernel_ + stride_ - 1) / stride_;
  const at::Tensor padded = at::constant_pad_nd(weight_, {0, taps * stride_ - kernel_});
  const at::Tensor phases =
      padded.unflatten(2, {taps, stride_}).flip(2).permute({3, 1, 0, 2});  // r, out, in, tap
  phases_ = Conv1d(phases.flatten(0, 1).contiguous(), bias_.repeat({stride_}), 1);
  phases_.prepare();
  weight_.reset();
}

int64_t ConvTranspose1d::out_length(int64_t length) const {
  return (length - 1) * stride_ - 2 * pad() + kernel_;
}

at::Tensor ConvTranspose1d::forward(const at::Tensor& x) const {
  const int64_t length = out_length(x.size(1));
  const int64_t taps = (kernel_ + stride_ - 1) / stride_;
  const int64_t steps = (length + pad() + stride_ - 1) / stride_;  // values of m that reach an output
  const at::Tensor padded = at::constant_pad_nd(x, {taps - 1, steps - x.size(1)});
  const at::Tensor phases = phases_.forward(padded).unflatten(0, {stride_, out_});  // [r, out, m]
  return phases.permute({1, 2, 0}).reshape({out_, steps * stride_}).narrow(1, pad(), length).contiguous();
}

}  // namespace omni
