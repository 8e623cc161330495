// Attention in blocks, of which only the first head knows positions: Qwen2.5-Omni's diffusion transformer.
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

// qkv: float32 [batch, rows, 3, heads, head_dim], contiguous: queries, keys and values. Queries and keys of head 0 are
// rotated by rows' angles first: neighbouring columns (x0, x1) by the angle of pair 0, and so on. cosines and sines:
// [rows, head_dim / 2], contiguous. Result [batch, rows, heads * head_dim]. Costs rows * window, not rows * rows.
at::Tensor block_attention(const at::Tensor& qkv, const at::Tensor& cosines, const at::Tensor& sines,
                           const BlockWindow& window);

// The plain twin: full attention under a mask.
at::Tensor block_attention_plain(const at::Tensor& qkv, const at::Tensor& cosines, const at::Tensor& sines,
                                 const BlockWindow& window);

}  // namespace omni
