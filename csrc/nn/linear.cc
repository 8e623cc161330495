// Linear layers, and the work split of the decode kernel.
#include "nn/linear.h"

#include <ATen/ATen.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <utility>

#include "nn/cpu/kernels.h"
#include "nn/parallel.h"

namespace omni {
namespace {

constexpr int64_t kRowsPerUnit = 16;              // weight rows that one thread takes at least
constexpr int64_t kElementsPerPiece = 64 * 1024;  // fewer weights than that are not worth sharing out

std::vector<c10::IValue> profiler_inputs(const at::Tensor& x, c10::ArrayRef<const Linear*> layers) {
  std::vector<c10::IValue> inputs{x};
  for (const Linear* layer : layers) inputs.emplace_back(layer->weight());
  return inputs;
}

// Runs parts, which share their input width, over all threads: a unit is a slice of one part's rows.
void run_parts(const cpu::TypedKernels& kernels, c10::ArrayRef<cpu::LinearArgs> parts) {
  int64_t units = 0;
  for (const cpu::LinearArgs& part : parts) units += (part.out_features + kRowsPerUnit - 1) / kRowsPerUnit;
  const int64_t smallest =
      std::max<int64_t>(1, kElementsPerPiece / (kRowsPerUnit * std::max<int64_t>(1, parts[0].in)));
  parallel_pieces(units, smallest, [&](int64_t begin, int64_t end) {
    int64_t first = 0;  // the first unit of the part
    for (const cpu::LinearArgs& part : parts) {
      const int64_t count = (part.out_features + kRowsPerUnit - 1) / kRowsPerUnit;
      const int64_t from = std::max<int64_t>(begin - first, 0) * kRowsPerUnit;
      const int64_t to = std::min(std::min<int64_t>(end - first, count) * kRowsPerUnit, part.out_features);
      if (from < to) kernels.linear(part, from, to);
      first += count;
    }
  });
}

const void* data_or_null(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.const_data_ptr() : nullptr;
}

// residual, if defined, belongs to the only layer.
std::vector<at::Tensor> run_kernel(const at::Tensor& x, c10::ArrayRef<const Linear*> layers,
                                   const at::Tensor& residual) {
  RECORD_FUNCTION("omni::linear_decode", profiler_inputs(x, layers));
  const cpu::Kernels& kernels = cpu::kernels();
  const bool direct = x.scalar_type() == at::kFloat || (x.scalar_type() == at::kBFloat16 && kernels.bf16_dot);
  const at::Tensor rows = direct ? x : x.to(at::kFloat);
  std::vector<at::Tensor> outputs;
  std::vector<cpu::LinearArgs> parts;
  outputs.reserve(layers.size());
  parts.reserve(layers.size());
  for (const Linear* layer : layers) {
    outputs.push_back(at::empty({x.size(0), layer->out_features()}, x.options()));
    parts.push_back({rows.const_data_ptr(), layer->weight().const_data_ptr(), data_or_null(layer->bias()),
                     data_or_null(residual), outputs.back().mutable_data_ptr(), x.size(0), x.size(1),
                     layer->out_features()});
  }
  run_parts(kernels.typed(x.scalar_type()), parts);
  return outputs;
}

}  // namespace

Linear::Linear(const WeightPath& path, int64_t in, int64_t out, bool bias) {
  path.bind(weight_, "weight", {out, in});
  if (bias) path.bind(bias_, "bias", {out});
}

Linear::Linear(at::Tensor weight, at::Tensor bias) : weight_(std::move(weight)), bias_(std::move(bias)) {}

at::Tensor Linear::forward(const at::Tensor& x) const {
  return at::linear(x, weight_, bias_.defined() ? std::optional<at::Tensor>(bias_) : std::nullopt);
}

std::vector<at::Tensor> linear_decode(const at::Tensor& x, c10::ArrayRef<const Linear*> layers) {
  if (x.is_cpu()) return run_kernel(x, layers, at::Tensor());
  std::vector<at::Tensor> outputs;
  for (const Linear* layer : layers) outputs.push_back(linear_decode_plain(x, *layer, at::Tensor()));
  return outputs;
}

at::Tensor linear_decode(const at::Tensor& x, const Linear& layer, const at::Tensor& residual) {
  if (x.is_cpu()) return run_kernel(x, {&layer}, residual)[0];
  return linear_decode_plain(x, layer, residual);
}

at::Tensor linear_decode_plain(const at::Tensor& x, const Linear& layer, const at::Tensor& residual) {
  const at::Tensor y = layer.forward(x);
  return residual.defined() ? residual + y : y;
}

}  // namespace omni
