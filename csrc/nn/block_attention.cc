// Block attention by the kernel or by libtorch.
#include "nn/block_attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "nn/cpu/generation.h"

namespace omni {
namespace {

// x [batch, rows, heads, head_dim] with head 0 rotated.
at::Tensor with_first_head_rotated(const at::Tensor& x, const at::Tensor& cosines, const at::Tensor& sines) {
  at::Tensor result = x.clone();
  const at::Tensor pairs = x.select(2, 0).unflatten(-1, {-1, 2});  // [batch, rows, head_dim / 2, 2]
  const at::Tensor even = pairs.select(-1, 0);
  const at::Tensor odd = pairs.select(-1, 1);
  result.select(2, 0).copy_(
      at::stack({even * cosines - odd * sines, odd * cosines + even * sines}, -1).flatten(-2));
  return result;
}

}  // namespace

at::Tensor block_attention(const at::Tensor& qkv, const at::Tensor& cosines, const at::Tensor& sines,
                           const BlockWindow& window) {
  if (!qkv.is_cpu()) return block_attention_plain(qkv, cosines, sines, window);
  const auto window_input = [&window] {
    return std::vector<int64_t>{window.size, window.back, window.ahead};
  };
  RECORD_FUNCTION("omni::block_attention", std::vector<c10::IValue>({qkv, cosines, sines, window_input()}));
  const auto kernel = cpu::generation_kernels().block_attention;
  const int64_t batch = qkv.size(0);
  const int64_t rows = qkv.size(1);
  const int64_t heads = qkv.size(3);
  const int64_t head_dim = qkv.size(4);
  const int64_t width = heads * head_dim;
  const int64_t blocks = (rows + window.size - 1) / window.size;
  at::Tensor out = at::empty({batch, rows, width}, qkv.options());
  const float* from = qkv.const_data_ptr<float>();
  const float* cosine = cosines.const_data_ptr<float>();
  const float* sine = sines.const_data_ptr<float>();
  float* to = out.mutable_data_ptr<float>();

  const int64_t most_keys = std::min((window.back + 1 + window.ahead) * window.size, rows);
  const int64_t scratch_size = cpu::block_attention_scratch(std::min(window.size, rows), most_keys, head_dim);
  at::parallel_for(0, batch * blocks * heads, heads, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch(scratch_size);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t head = i % heads;
      const int64_t block = i / heads % blocks;
      const int64_t entry = i / heads / blocks;
      const int64_t first = block * window.size;
      const int64_t last = std::min(first + window.size, rows);
      const int64_t first_key = std::max<int64_t>(first - window.back * window.size, 0);
      const int64_t last_key = std::min(last + window.ahead * window.size, rows);
      const float* base = from + entry * rows * 3 * width + head * head_dim;
      cpu::BlockAttentionArgs args;
      args.q = base + first * 3 * width;
      args.k = base + (first_key * 3 + 1) * width;
      args.v = base + (first_key * 3 + 2) * width;
      args.out = to + (entry * rows + first) * width + head * head_dim;
      args.row_stride = 3 * width;
      args.out_stride = width;
      args.rows = last - first;
      args.keys = last_key - first_key;
      args.head_dim = head_dim;
      args.scale = 1.0F / std::sqrt(static_cast<float>(head_dim));
      args.q_cosines = head == 0 ? cosine + first * head_dim / 2 : nullptr;
      args.q_sines = head == 0 ? sine + first * head_dim / 2 : nullptr;
      args.k_cosines = head == 0 ? cosine + first_key * head_dim / 2 : nullptr;
      args.k_sines = head == 0 ? sine + first_key * head_dim / 2 : nullptr;
      kernel(args, scratch.data());
    }
  });
  return out;
}

at::Tensor block_attention_plain(const at::Tensor& qkv, const at::Tensor& cosines, const at::Tensor& sines,
                                 const BlockWindow& window) {
  const at::Tensor q = with_first_head_rotated(qkv.select(2, 0), cosines, sines);
  const at::Tensor k = with_first_head_rotated(qkv.select(2, 1), cosines, sines);
  const at::Tensor v = qkv.select(2, 2);
  const at::Tensor block = at::arange(q.size(1), q.options().dtype(at::kLong)).floor_divide(window.size);
  const at::Tensor difference = block.unsqueeze(0) - block.unsqueeze(1);
  const at::Tensor mask = at::logical_and(difference.ge(-window.back), difference.le(window.ahead));
  return at::scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask)
      .transpose(1, 2)
      .flatten(2);
}

}  // namespace omni
