// Causal self-attention with grouped query heads over a sequence's cache.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

#include <cstdint>
#include <string>
#include <vector>

#include "nn/linear.h"
#include "nn/rope.h"
#include "runtime/kv_cache.h"
#include "runtime/weights.h"

namespace omni {

struct AttentionConfig {
  int64_t hidden;
  int64_t heads;
  int64_t kv_heads;
  int64_t head_dim;
  bool qkv_bias;
  int64_t window;  // a token sees itself and window - 1 before it; 0: all before it
};

// Where the keys and values of one row go: position behind the kept ones of that cache.
struct CacheSlot {
  KvCache* cache;
  int64_t position;
};

// Rotates query [rows, heads * head_dim] in place, and writes rotated key and value [rows, kv_heads * head_dim] to the
// slots of a layer's caches.
void rotate_and_store(const AttentionConfig& config, int64_t layer, at::Tensor& query, const at::Tensor& key,
                      const at::Tensor& value, const RopeRows& rope, c10::ArrayRef<CacheSlot> slots);
void rotate_and_store_plain(const AttentionConfig& config, int64_t layer, at::Tensor& query,
                            const at::Tensor& key, const at::Tensor& value, const RopeRows& rope,
                            c10::ArrayRef<CacheSlot> slots);

// query [rows, heads * head_dim], rotated; row i attends to its cache up to and with slot i. Every row as if it were
// alone.
at::Tensor attention_decode(const AttentionConfig& config, int64_t layer, const at::Tensor& query,
                            c10::ArrayRef<CacheSlot> slots);
// The same by libtorch's scaled_dot_product_attention, row after row.
at::Tensor attention_decode_plain(const AttentionConfig& config, int64_t layer, const at::Tensor& query,
                                  c10::ArrayRef<CacheSlot> slots);

class Attention {
 public:
  Attention(const WeightPath& path, const AttentionConfig& config, int64_t layer);

  // residual + attention(x), both [tokens, hidden]: all tokens of one sequence, whose cache is empty and has room.
  at::Tensor prefill(const at::Tensor& x, const at::Tensor& residual, const RopeRows& rope,
                     c10::ArrayRef<CacheSlot> slots) const;
  // The same for one token of each of batch sequences, every row as if it were alone.
  at::Tensor decode(const at::Tensor& x, const at::Tensor& residual, const RopeRows& rope,
                    c10::ArrayRef<CacheSlot> slots) const;

 private:
  AttentionConfig config_;
  int64_t layer_;
  Linear q_proj_;
  Linear k_proj_;
  Linear v_proj_;
  Linear o_proj_;
};

}  // namespace omni
