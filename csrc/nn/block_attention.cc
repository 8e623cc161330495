#include "nn/block_attention.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

namespace omni {
namespace {

// count query blocks of `rows` rows each from row `begin` on, all of which see `keys` rows; block i's keys begin at
// row first_key + i * rows. [batch, length, heads, head_dim] -> the same number of rows of [.., heads * head_dim].
struct Run {
  int64_t begin;
  int64_t rows;
  int64_t count;
  int64_t first_key;
  int64_t keys;
};

// Cuts the rows into runs of blocks whose windows have the same shape, so that each run is one batched attention.
std::vector<Run> runs_of(int64_t length, const BlockWindow& window) {
  std::vector<Run> runs;
  for (int64_t begin = 0; begin < length; begin += window.size) {
    const int64_t rows = std::min(window.size, length - begin);
    const int64_t first_key = std::max<int64_t>(begin - window.back * window.size, 0);
    const int64_t end_key = std::min(begin + (window.ahead + 1) * window.size, length);
    Run* last = runs.empty() ? nullptr : &runs.back();
    if (last != nullptr && last->rows == rows && last->keys == end_key - first_key &&
        last->first_key + last->count * window.size == first_key) {
      ++last->count;
    } else {
      runs.push_back({begin, rows, 1, first_key, end_key - first_key});
    }
  }
  return runs;
}

// A view [count, heads, rows, head_dim] of one batch entry x [length, heads, head_dim]; blocks may overlap.
at::Tensor blocks_of(const at::Tensor& x, int64_t begin, int64_t rows, int64_t count, int64_t step) {
  return x.as_strided({count, x.size(1), rows, x.size(2)},
                      {step * x.stride(0), x.stride(1), x.stride(0), x.stride(2)},
                      x.storage_offset() + begin * x.stride(0));
}

}  // namespace

at::Tensor block_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const BlockWindow& window) {
  const int64_t batch = q.size(0);
  const int64_t length = q.size(1);
  const int64_t width = q.size(2) * q.size(3);
  at::Tensor out = at::empty({batch, length, width}, q.options());
  for (const Run& run : runs_of(length, window)) {
    for (int64_t b = 0; b < batch; ++b) {
      const at::Tensor part =
          at::scaled_dot_product_attention(blocks_of(q[b], run.begin, run.rows, run.count, window.size),
                                           blocks_of(k[b], run.first_key, run.keys, run.count, window.size),
                                           blocks_of(v[b], run.first_key, run.keys, run.count, window.size));
      out[b]
          .narrow(0, run.begin, run.count * run.rows)
          .view({run.count, run.rows, q.size(2), q.size(3)})
          .copy_(part.transpose(1, 2));
    }
  }
  return out;
}

at::Tensor block_attention_plain(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 const BlockWindow& window) {
  const at::Tensor block = at::arange(q.size(1), q.options().dtype(at::kLong)).floor_divide(window.size);
  const at::Tensor difference = block.unsqueeze(0) - block.unsqueeze(1);
  const at::Tensor mask = at::logical_and(difference.ge(-window.back), difference.le(window.ahead));
  return at::scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask)
      .transpose(1, 2)
      .reshape({q.size(0), q.size(1), q.size(2) * q.size(3)});
}

void rotate_first_head_(at::Tensor& x, const at::Tensor& cosines, const at::Tensor& sines) {
  at::Tensor first = x.select(2, 0).unflatten(-1, {-1, 2});  // [batch, rows, head_dim / 2, 2]
  at::Tensor even = first.select(-1, 0);
  at::Tensor odd = first.select(-1, 1);
  const at::Tensor rotated_even = even * cosines - odd * sines;
  odd.copy_(odd * cosines + even * sines);
  even.copy_(rotated_even);
}

}  // namespace omni
