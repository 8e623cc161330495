// Self-attention of prefill (libtorch's fused kernel over one sequence) and of decode (own kernel over many caches).
#include "nn/attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "nn/cpu/kernels.h"
#include "nn/parallel.h"

namespace omni {
namespace {

constexpr int64_t kRopeRowsPerThread = 16;
constexpr int64_t kProductsPerPiece = 64 * 1024;  // fewer multiplications are not worth sharing out

double scale_of(const AttentionConfig& config) {
  return 1.0 / std::sqrt(static_cast<double>(config.head_dim));
}

// The first position that the token at position sees.
int64_t window_begin(const AttentionConfig& config, int64_t position) {
  return config.window == 0 ? 0 : std::max<int64_t>(0, position - config.window + 1);
}

// How many positions the tokens of all slots together see.
int64_t positions_seen(const AttentionConfig& config, c10::ArrayRef<CacheSlot> slots) {
  int64_t positions = 0;
  for (const CacheSlot& slot : slots) positions += slot.position + 1 - window_begin(config, slot.position);
  return positions;
}

std::byte* bytes_at(void* base, int64_t elements, size_t element_size) {
  return static_cast<std::byte*>(base) + static_cast<size_t>(elements) * element_size;
}

// Whether the slots follow one another in the same cache, as those of a prompt do.
bool is_one_piece(c10::ArrayRef<CacheSlot> slots) {
  for (size_t i = 1; i < slots.size(); ++i) {
    if (slots[i].cache != slots[0].cache || slots[i].position != slots[i - 1].position + 1) return false;
  }
  return !slots.empty();
}

// x [rows, heads, head_dim] rotated by libtorch's ops, each rounded to the dtype.
at::Tensor rotated(const at::Tensor& x, const RopeRows& rope) {
  const auto options = x.options();
  const at::Tensor cosines = at::cat({rope.cosines, rope.cosines}, -1).to(options).unsqueeze(1);
  const at::Tensor sines = at::cat({rope.sines, rope.sines}, -1).to(options).unsqueeze(1);
  const std::vector<at::Tensor> halves = x.chunk(2, -1);
  return x * cosines + at::cat({-halves[1], halves[0]}, -1) * sines;
}

}  // namespace

void rotate_and_store(const AttentionConfig& config, int64_t layer, at::Tensor& query, const at::Tensor& key,
                      const at::Tensor& value, const RopeRows& rope, c10::ArrayRef<CacheSlot> slots) {
  if (!query.is_cpu()) return rotate_and_store_plain(config, layer, query, key, value, rope, slots);
  RECORD_FUNCTION("omni::rotate_and_store", std::vector<c10::IValue>({query, key, value}));
  const cpu::TypedKernels& kernels = cpu::kernels().typed(query.scalar_type());
  const size_t size = query.element_size();
  const int64_t head_dim = config.head_dim;
  const int64_t half = head_dim / 2;
  const size_t head_bytes = static_cast<size_t>(head_dim) * size;
  at::parallel_for(0, query.size(0), kRopeRowsPerThread, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const CacheSlot& slot = slots[static_cast<size_t>(row)];
      const at::Tensor& both = slot.cache->both(layer);
      const int64_t head_stride = slot.cache->room(layer) * head_dim;
      const float* cosines = rope.cosines.const_data_ptr<float>() + row * half;
      const float* sines = rope.sines.const_data_ptr<float>() + row * half;
      std::byte* q = bytes_at(query.mutable_data_ptr(), row * config.heads * head_dim, size);
      const std::byte* k =
          bytes_at(const_cast<void*>(key.const_data_ptr()), row * config.kv_heads * head_dim, size);
      const std::byte* v =
          bytes_at(const_cast<void*>(value.const_data_ptr()), row * config.kv_heads * head_dim, size);
      std::byte* keys = bytes_at(both.mutable_data_ptr(), slot.position * head_dim, size);
      std::byte* values = bytes_at(keys, config.kv_heads * head_stride, size);
      kernels.rope({q, q, config.heads, head_dim, head_dim, head_dim, cosines, sines});
      kernels.rope({k, keys, config.kv_heads, head_dim, head_stride, head_dim, cosines, sines});
      for (int64_t head = 0; head < config.kv_heads; ++head) {
        std::memcpy(bytes_at(values, head * head_stride, size), v + static_cast<size_t>(head) * head_bytes,
                    head_bytes);
      }
    }
  });
}

void rotate_and_store_plain(const AttentionConfig& config, int64_t layer, at::Tensor& query,
                            const at::Tensor& key, const at::Tensor& value, const RopeRows& rope,
                            c10::ArrayRef<CacheSlot> slots) {
  const int64_t rows = query.size(0);
  query = rotated(query.view({rows, config.heads, config.head_dim}), rope).reshape({rows, -1});
  const at::Tensor keys = rotated(key.view({rows, config.kv_heads, config.head_dim}), rope);
  const at::Tensor values = value.view({rows, config.kv_heads, config.head_dim});
  if (is_one_piece(slots)) {
    KvCache& cache = *slots[0].cache;
    cache.keys(layer).narrow(1, slots[0].position, rows).copy_(keys.transpose(0, 1));
    cache.values(layer).narrow(1, slots[0].position, rows).copy_(values.transpose(0, 1));
    return;
  }
  for (int64_t row = 0; row < rows; ++row) {
    const CacheSlot& slot = slots[static_cast<size_t>(row)];
    slot.cache->keys(layer).select(1, slot.position).copy_(keys[row]);
    slot.cache->values(layer).select(1, slot.position).copy_(values[row]);
  }
}

at::Tensor attention_decode(const AttentionConfig& config, int64_t layer, const at::Tensor& query,
                            c10::ArrayRef<CacheSlot> slots) {
  if (!query.is_cpu()) return attention_decode_plain(config, layer, query, slots);
  RECORD_FUNCTION("omni::attention_decode", std::vector<c10::IValue>({query, positions_seen(config, slots)}));
  const cpu::TypedKernels& kernels = cpu::kernels().typed(query.scalar_type());
  const size_t size = query.element_size();
  const int64_t group = config.heads / config.kv_heads;
  at::Tensor out = at::empty_like(query);
  std::vector<cpu::AttentionArgs> rows;
  rows.reserve(slots.size());
  int64_t longest = 0;
  for (size_t i = 0; i < slots.size(); ++i) {
    const KvCache& cache = *slots[i].cache;
    const at::Tensor& both = cache.both(layer);
    const int64_t room = cache.room(layer);
    const int64_t row = static_cast<int64_t>(i) * config.heads * config.head_dim;
    const int64_t begin = window_begin(config, slots[i].position);
    const int64_t end = slots[i].position + 1;
    void* keys = both.mutable_data_ptr();
    rows.push_back({bytes_at(query.mutable_data_ptr(), row, size), keys,
                    bytes_at(keys, config.kv_heads * room * config.head_dim, size),
                    bytes_at(out.mutable_data_ptr(), row, size), config.heads, config.kv_heads,
                    config.head_dim, room, begin, end, static_cast<float>(scale_of(config))});
    longest = std::max(longest, end - begin);
  }
  const int64_t tasks = static_cast<int64_t>(rows.size()) * config.kv_heads;
  const int64_t products =
      2 * config.head_dim * group * positions_seen(config, slots) * config.kv_heads / tasks;  // of one task
  const int64_t smallest = std::max<int64_t>(1, kProductsPerPiece / products);
  parallel_pieces(tasks, smallest, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch(static_cast<size_t>(group * longest));
    for (int64_t task = begin; task < end; ++task) {
      kernels.attention(rows[static_cast<size_t>(task / config.kv_heads)], task % config.kv_heads,
                        scratch.data());
    }
  });
  return out;
}

at::Tensor attention_decode_plain(const AttentionConfig& config, int64_t layer, const at::Tensor& query,
                                  c10::ArrayRef<CacheSlot> slots) {
  std::vector<at::Tensor> rows;
  for (size_t i = 0; i < slots.size(); ++i) {
    const int64_t begin = window_begin(config, slots[i].position);
    const int64_t count = slots[i].position + 1 - begin;
    const at::Tensor q = query[static_cast<int64_t>(i)].view({1, config.heads, 1, config.head_dim});
    const at::Tensor k = slots[i].cache->keys(layer).narrow(1, begin, count).unsqueeze(0);
    const at::Tensor v = slots[i].cache->values(layer).narrow(1, begin, count).unsqueeze(0);
    rows.push_back(at::scaled_dot_product_attention(q, k, v, std::nullopt, 0.0, false, scale_of(config),
                                                    config.heads != config.kv_heads)
                       .reshape({-1}));
  }
  return at::stack(rows);
}

Attention::Attention(const WeightPath& path, const AttentionConfig& config, int64_t layer)
    : config_(config),
      layer_(layer),
      q_proj_(path / "q_proj", config.hidden, config.heads * config.head_dim, config.qkv_bias),
      k_proj_(path / "k_proj", config.hidden, config.kv_heads * config.head_dim, config.qkv_bias),
      v_proj_(path / "v_proj", config.hidden, config.kv_heads * config.head_dim, config.qkv_bias),
      o_proj_(path / "o_proj", config.heads * config.head_dim, config.hidden, /*bias=*/false) {}

at::Tensor Attention::prefill(const at::Tensor& x, const at::Tensor& residual, const RopeRows& rope,
                              c10::ArrayRef<CacheSlot> slots) const {
  const int64_t tokens = x.size(0);
  at::Tensor query = q_proj_.forward(x);
  rotate_and_store(config_, layer_, query, k_proj_.forward(x), v_proj_.forward(x), rope, slots);
  const KvCache& cache = *slots[0].cache;
  const at::Tensor q = query.view({1, tokens, config_.heads, config_.head_dim}).transpose(1, 2);
  const at::Tensor k = cache.keys(layer_).narrow(1, 0, tokens).unsqueeze(0);
  const at::Tensor v = cache.values(layer_).narrow(1, 0, tokens).unsqueeze(0);
  std::optional<at::Tensor> mask;
  if (config_.window != 0 && config_.window < tokens) {
    mask = at::ones({tokens, tokens}, x.options().dtype(at::kBool)).tril().triu(1 - config_.window);
  }
  const at::Tensor mixed = at::scaled_dot_product_attention(
      q, k, v, mask, 0.0, /*is_causal=*/!mask, scale_of(config_), config_.heads != config_.kv_heads);
  return residual + o_proj_.forward(mixed.transpose(1, 2).reshape({tokens, -1}));
}

at::Tensor Attention::decode(const at::Tensor& x, const at::Tensor& residual, const RopeRows& rope,
                             c10::ArrayRef<CacheSlot> slots) const {
  std::vector<at::Tensor> qkv = linear_decode(x, {&q_proj_, &k_proj_, &v_proj_});
  rotate_and_store(config_, layer_, qkv[0], qkv[1], qkv[2], rope, slots);
  return linear_decode(attention_decode(config_, layer_, qkv[0], slots), o_proj_, residual);
}

}  // namespace omni
