#include "nn/conv1d.h"

#include <ATen/ATen.h>

namespace omni {

void Conv1d::bind(const WeightPath& path, int64_t in, int64_t out, int64_t kernel, int64_t dilation,
                  bool has_bias) {
  in_ = in;
  out_ = out;
  kernel_ = kernel;
  dilation_ = dilation;
  path.bind(weight_, "weight", {out, in, kernel});
  if (has_bias) path.bind(bias_, "bias", {out});
}

void Conv1d::prepare() {}

at::Tensor Conv1d::forward(const at::Tensor& x) const {
  return at::conv1d(x.unsqueeze(0), weight_, bias_, 1, at::IntArrayRef{0}, dilation_)[0];
}

void Conv1d::add_to(at::Tensor& out, const at::Tensor& x) const {
  out.add_(forward(x));
}

void ConvTranspose1d::bind(const WeightPath& path, int64_t in, int64_t out, int64_t kernel, int64_t stride) {
  in_ = in;
  out_ = out;
  kernel_ = kernel;
  stride_ = stride;
  path.bind(weight_, "weight", {in, out, kernel});
  path.bind(bias_, "bias", {out});
}

void ConvTranspose1d::prepare() {}

int64_t ConvTranspose1d::out_length(int64_t length) const {
  return (length - 1) * stride_ - 2 * ((kernel_ - stride_) / 2) + kernel_;
}

at::Tensor ConvTranspose1d::forward(const at::Tensor& x) const {
  return at::conv_transpose1d(x.unsqueeze(0), weight_, bias_, stride_, (kernel_ - stride_) / 2)[0];
}

}  // namespace omni
