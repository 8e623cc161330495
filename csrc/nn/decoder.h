// The text decoder of the Qwen2.5 models: pre-norm layers of attention and a gated MLP, and a final norm.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "nn/attention.h"
#include "nn/mlp.h"
#include "nn/norm.h"
#include "nn/rope.h"
#include "runtime/config.h"
#include "runtime/kv_cache.h"
#include "runtime/weights.h"

namespace omni {

// The dimensions of a decoder, from a text model's object of config.json.
struct DecoderConfig {
  int64_t vocab_size;
  int64_t hidden;
  int64_t intermediate;
  int64_t layers;
  int64_t heads;
  int64_t kv_heads;
  int64_t head_dim;
  int64_t max_positions;
  double norm_eps;
  RopeConfig rope;
  std::vector<int64_t> windows;  // of every layer; 0: it sees everything

  // default_head_dim: of files that do not say; 0 for hidden / heads. Throws INVALID_ARGUMENT that names file and key
  // for what is missing or contradicts itself.
  static DecoderConfig parse(const Config& model, int64_t default_head_dim = 0);
};

// One sequence's token in a decode step: its cache, and its position on the three axes of the rotary embedding.
struct DecodeRow {
  KvCache* cache;
  int64_t position[3];
};

// [torch thread]
class Decoder {
 public:
  // Binds "<path>.layers.N..." and "<path>.norm". name begins the names of module scopes: "thinker".
  Decoder(const WeightPath& path, const DecoderConfig& config, const std::string& name);
  ~Decoder();

  // inputs [tokens, hidden] of one sequence, positions int64 [3, tokens] -> hidden states after the final norm
  // [tokens, hidden]. The cache must be empty; it then keeps the tokens.
  at::Tensor prefill(const at::Tensor& inputs, const at::Tensor& positions, KvCache& cache);

  // inputs [batch, hidden], one token of each row's sequence -> the same shape, after the final norm. Every row gets the
  // bits that it would get alone. Every cache must have room for one more position and keeps the token; caches are
  // distinct.
  at::Tensor decode(const at::Tensor& inputs, c10::ArrayRef<DecodeRow> rows);

  const DecoderConfig& config() const { return config_; }
  KvCacheShape cache_shape() const;

 private:
  struct Layer;

  DecoderConfig config_;
  at::ScalarType dtype_;
  at::Device device_;
  Rope rope_;
  std::vector<std::unique_ptr<Layer>> layers_;
  RmsNorm norm_;
};

}  // namespace omni
