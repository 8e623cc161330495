// The formulas. A multiplication and the addition of its product are two operations.
#include "profiler/op_flops.h"

#include <algorithm>
#include <array>

namespace omni {
namespace {

using Inputs = std::vector<OpInput>;
using Sizes = std::vector<int64_t>;

// The sizes of the tensor at a place; none if there is no tensor.
Sizes tensor(const Inputs& inputs, size_t at) {
  return at < inputs.size() && inputs[at].tensor ? inputs[at].values : Sizes();
}

// The integers at a place, if there are so many; else none.
Sizes integers(const Inputs& inputs, size_t at, size_t count) {
  const bool there = at < inputs.size() && !inputs[at].tensor && inputs[at].values.size() == count;
  return there ? inputs[at].values : Sizes();
}

uint64_t product(const Sizes& values) {
  uint64_t result = 1;
  for (const int64_t value : values) result *= static_cast<uint64_t>(value);
  return result;
}

uint64_t u(int64_t value) { return static_cast<uint64_t>(value); }

// [..., k] x [..., k, n].
uint64_t matrix_product(const Sizes& a, const Sizes& b, bool batched) {
  if (a.empty() || b.empty() || a.back() == 0 || (batched && a[0] == 0)) return 0;
  const uint64_t flops = 2 * (product(a) / u(a.back())) * product(b);
  return batched ? flops / u(a[0]) : flops;
}

uint64_t mm(const Inputs& in) { return matrix_product(tensor(in, 0), tensor(in, 1), false); }
uint64_t addmm(const Inputs& in) { return matrix_product(tensor(in, 1), tensor(in, 2), false); }
uint64_t bmm(const Inputs& in) { return matrix_product(tensor(in, 0), tensor(in, 1), true); }
uint64_t baddbmm(const Inputs& in) { return matrix_product(tensor(in, 1), tensor(in, 2), true); }

// One operation per element.
uint64_t elementwise(const Inputs& in) { return in.empty() || !in[0].tensor ? 0 : product(in[0].values); }

// x [..., in] by weights [out, in], of which there may be several: each row of x by each row of a weight.
uint64_t linear(const Inputs& in) {
  const Sizes x = tensor(in, 0);
  uint64_t rows = 0;
  for (size_t i = 1; i < in.size(); ++i) {
    const Sizes weight = tensor(in, i);
    if (weight.size() == 2 && !x.empty() && weight[1] == x.back()) rows += u(weight[0]);
  }
  return 2 * product(x) * rows;
}

// torch's linear layers take one weight, and a bias that may be of its form.
uint64_t linear_pointwise(const Inputs& in) {
  return in.size() < 2 ? 0 : linear(Inputs(in.begin(), in.begin() + 2));
}

// The integers of a convolution at a place, one per axis; one for all axes may stand for them.
Sizes per_axis(const Inputs& inputs, size_t at, size_t axes) {
  const Sizes one = integers(inputs, at, 1);
  return one.empty() ? integers(inputs, at, axes) : Sizes(axes, one[0]);
}

// convNd(input, weight, bias, stride, padding, dilation, groups): for each output, the kernel over a group's channels.
template <size_t kAxes>
uint64_t convolution(const Inputs& in) {
  constexpr bool kByTorch = kAxes == 2;  // which counts nothing unless all is spelled out
  Sizes input = tensor(in, 0);
  const Sizes weight = tensor(in, 1);
  if (!kByTorch && input.size() == kAxes + 1) input.insert(input.begin(), 1);
  const auto numbers = kByTorch ? integers : per_axis;
  const Sizes stride = numbers(in, 3, kAxes), padding = numbers(in, 4, kAxes),
              dilation = numbers(in, 5, kAxes);
  const Sizes groups = integers(in, 6, 1);
  if (input.size() != kAxes + 2 || weight.size() != kAxes + 2 || stride.empty() || padding.empty() ||
      dilation.empty() || groups.empty() || groups[0] == 0 || product(stride) == 0)
    return 0;
  uint64_t outputs = 1;
  uint64_t window = 1;
  for (size_t i = 0; i < kAxes; ++i) {
    const int64_t extent = dilation[i] * (weight[2 + i] - 1) + 1;
    outputs *= u((input[2 + i] + 2 * padding[i] - extent) / stride[i] + 1);
    window *= u(weight[2 + i]);
  }
  return 2 * u(input[0]) * outputs * window * u(input[1]) * u(weight[0]) / u(groups[0]);
}

// conv_transposeNd(input, weight [in, out / groups, ...], ...): each input is spread over a kernel.
uint64_t transposed_convolution(const Inputs& in) {
  const Sizes weight = tensor(in, 1);
  if (weight.empty() || weight[0] == 0) return 0;
  return 2 * product(tensor(in, 0)) * (product(weight) / u(weight[0]));
}

// Query, key and value [batch, heads, rows, width]: scores, and the mean of values that they weigh. A mask saves nothing.
uint64_t attention(const Inputs& in) {
  const Sizes query = tensor(in, 0), key = tensor(in, 1), value = tensor(in, 2);
  if (query.size() != 4 || key.size() != 4 || value.size() != 4) return 0;
  return 2 * u(query[0]) * u(query[1]) * u(query[2]) * u(key[2]) * (u(query[3]) + u(value[3]));
}

// query [rows, heads * width], and how many positions all rows together see.
uint64_t attention_decode(const Inputs& in) {
  const Sizes query = tensor(in, 0), positions = integers(in, 1, 1);
  return query.size() != 2 || positions.empty() ? 0 : 4 * u(positions[0]) * u(query[1]);
}

// qkv [batch, rows, 3, heads, width], rotary tables, and [block, back, ahead]: a row sees its block and so many around it.
uint64_t block_attention(const Inputs& in) {
  const Sizes qkv = tensor(in, 0), window = integers(in, 3, 3);
  if (qkv.size() != 5 || window.empty() || window[0] <= 0) return 0;
  const int64_t rows = qkv[1];
  uint64_t pairs = 0;
  for (int64_t first = 0; first < rows; first += window[0]) {
    const int64_t last = std::min(first + window[0], rows);
    const int64_t first_key = std::max<int64_t>(first - window[1] * window[0], 0);
    const int64_t last_key = std::min(last + window[2] * window[0], rows);
    pairs += u(last - first) * u(last_key - first_key);
  }
  return 4 * u(qkv[0]) * pairs * u(qkv[3]) * u(qkv[4]);
}

// x [in, length], the weight in the kernel's order, bias, and [out, kernel, dilation].
uint64_t own_conv1d(const Inputs& in) {
  const Sizes x = tensor(in, 0), form = integers(in, 3, 3);
  if (x.size() != 2 || form.empty()) return 0;
  return 2 * u(x[0]) * u(form[0]) * u(form[1]) * u(x[1] - (form[1] - 1) * form[2]);
}

// Two filters of 12 taps: one makes two samples of each, of which every second tap is a zero; one makes one of two.
uint64_t anti_aliased_snake(const Inputs& in) {
  return 48 * product(tensor(in, 0)) * (tensor(in, 0).empty() ? 0 : 1);
}

struct Counted {
  std::string_view name;
  uint64_t (*formula)(const Inputs&);
  bool by_torch = false;
};

constexpr std::array kCounted = {
    Counted{"aten::mm", mm, true},
    Counted{"aten::addmm", addmm, true},
    Counted{"aten::bmm", bmm, true},
    Counted{"aten::baddbmm", baddbmm, true},
    Counted{"aten::conv2d", convolution<2>, true},
    Counted{"aten::mul", elementwise, true},
    Counted{"aten::add", elementwise, true},
    Counted{"aten::conv1d", convolution<1>},
    Counted{"aten::conv3d", convolution<3>},
    Counted{"aten::conv_transpose1d", transposed_convolution},
    Counted{"aten::conv_transpose2d", transposed_convolution},
    Counted{"aten::conv_transpose3d", transposed_convolution},
    Counted{"mkldnn::_linear_pointwise", linear_pointwise},
    // What scaled_dot_product_attention calls. Where it calls none of these, it calls bmm.
    Counted{"aten::_scaled_dot_product_flash_attention_for_cpu", attention},
    Counted{"aten::_scaled_dot_product_flash_attention", attention},
    Counted{"aten::_scaled_dot_product_efficient_attention", attention},
    Counted{"aten::_scaled_dot_product_cudnn_attention", attention},
    Counted{"omni::linear_decode", linear},
    Counted{"omni::attention_decode", attention_decode},
    Counted{"omni::block_attention", block_attention},
    Counted{"omni::conv1d", own_conv1d},
    Counted{"omni::anti_aliased_snake", anti_aliased_snake},
};

const Counted* find(std::string_view name) {
  const auto* const found =
      std::find_if(kCounted.begin(), kCounted.end(), [name](const Counted& row) { return row.name == name; });
  return found == kCounted.end() ? nullptr : found;
}

}  // namespace

bool counts_flops(std::string_view name) { return find(name) != nullptr; }

bool torch_counts_flops(std::string_view name) {
  const Counted* const row = find(name);
  return row != nullptr && row->by_torch;
}

uint64_t count_flops(std::string_view name, const std::vector<OpInput>& inputs) {
  const Counted* const row = find(name);
  return row == nullptr ? 0 : row->formula(inputs);
}

}  // namespace omni
