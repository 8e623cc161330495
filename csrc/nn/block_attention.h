// Attention in blocks: a row sees the rows of its own block, and of the neighbouring block if its layer looks there.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace omni {

// Rows i and j are in blocks i / size and j / size; i sees j if the difference of their blocks is in [-back, ahead].
struct BlockWindow {
  int64_t size;
  int64_t back;   // blocks before
  int64_t ahead;  // blocks after
};

// q, k and v: [batch, rows, heads, head_dim], any strides with dense heads. Result [batch, rows, heads * head_dim],
// scaled by 1/sqrt(head_dim). Costs rows * window, not rows * rows.
at::Tensor block_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const BlockWindow& window);

// The plain twin: full attention under a mask.
at::Tensor block_attention_plain(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 const BlockWindow& window);

// Rotates pairs of neighbouring columns of the first head in place: (x0, x1) by the angle of pair 0, and so on.
// x: [batch, rows, heads, head_dim]; cosines and sines: [rows, head_dim / 2].
void rotate_first_head_(at::Tensor& x, const at::Tensor& cosines, const at::Tensor& sines);

}  // namespace omni
