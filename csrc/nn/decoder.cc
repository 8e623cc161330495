// The Qwen2.5 text decoder: https://arxiv.org/abs/2503.20215 (Qwen2.5-Omni), layers as in Qwen2
// (https://arxiv.org/abs/2407.10671).
#include "nn/decoder.h"

#include <ATen/ATen.h>

#include <string>
#include <utility>

#include "profiler/scope.h"
#include "status.h"

namespace omni {
namespace {

void require_divides(const Config& model, const char* key, int64_t divisor, const char* of, int64_t number) {
  if (number % divisor == 0) return;
  model.fail("\"" + std::string(key) + "\": expected a divisor of " + of + " = " + std::to_string(number) +
             ", found " + std::to_string(divisor));
}

int64_t positive(const Config& model, const char* key, int64_t fallback) {
  return model.has(key) ? model.positive(key) : fallback;
}

// The window of every layer, from layer_types or, in older files, from max_window_layers.
std::vector<int64_t> parse_windows(const Config& model, int64_t layers) {
  constexpr int64_t kDefaultWindow = 32768;
  constexpr int64_t kDefaultFullLayers = 28;
  const int64_t window =
      model.boolean("use_sliding_window", false) ? positive(model, "sliding_window", kDefaultWindow) : 0;
  std::vector<int64_t> windows;
  if (!model.has("layer_types")) {
    const int64_t full = model.integer("max_window_layers", kDefaultFullLayers);
    for (int64_t i = 0; i < layers; ++i) windows.push_back(i < full ? 0 : window);
    return windows;
  }
  const nlohmann::json& types = model.json().at("layer_types");
  if (!types.is_array() || static_cast<int64_t>(types.size()) != layers) {
    model.fail("\"layer_types\": expected a list of num_hidden_layers = " + std::to_string(layers) +
               " entries");
  }
  for (const nlohmann::json& type : types) {
    if (type == "full_attention") {
      windows.push_back(0);
    } else if (type == "sliding_attention") {
      if (window == 0)
        model.fail(
            "\"layer_types\": \"sliding_attention\" needs \"use_sliding_window\" and \"sliding_window\"");
      windows.push_back(window);
    } else {
      model.fail("\"layer_types\": expected \"full_attention\" or \"sliding_attention\", found " +
                 type.dump());
    }
  }
  return windows;
}

}  // namespace

DecoderConfig DecoderConfig::parse(const Config& model, int64_t default_head_dim) {
  constexpr int64_t kDefaultMaxPositions = 32768;
  DecoderConfig config;
  config.vocab_size = model.positive("vocab_size");
  config.hidden = model.positive("hidden_size");
  config.intermediate = model.positive("intermediate_size");
  config.layers = model.positive("num_hidden_layers");
  config.heads = model.positive("num_attention_heads");
  config.kv_heads = positive(model, "num_key_value_heads", config.heads);
  require_divides(model, "num_key_value_heads", config.kv_heads, "num_attention_heads", config.heads);
  const bool derived = !model.has("head_dim") && default_head_dim == 0;
  if (derived) require_divides(model, "num_attention_heads", config.heads, "hidden_size", config.hidden);
  config.head_dim = derived ? config.hidden / config.heads : positive(model, "head_dim", default_head_dim);
  if (config.head_dim % 2 != 0) {
    model.fail("\"head_dim\": expected an even number, found " + std::to_string(config.head_dim));
  }
  config.max_positions = positive(model, "max_position_embeddings", kDefaultMaxPositions);
  config.norm_eps = model.number("rms_norm_eps", 1e-6);
  if (config.norm_eps < 0)
    model.fail("\"rms_norm_eps\": expected a number >= 0, found " + std::to_string(config.norm_eps));
  const std::string activation = model.string("hidden_act", "silu");
  if (activation != "silu") model.fail("\"hidden_act\": expected \"silu\", found \"" + activation + "\"");
  config.rope = RopeConfig::parse(model, config.head_dim);
  config.windows = parse_windows(model, config.layers);
  return config;
}

struct Decoder::Layer {
  Layer(const WeightPath& path, const DecoderConfig& config, int64_t index, const std::string& name)
      : attention_scope(name + ".self_attn"),
        mlp_scope(name + ".mlp"),
        input_norm(path / "input_layernorm", config.hidden, config.norm_eps),
        attention(path / "self_attn",
                  {config.hidden, config.heads, config.kv_heads, config.head_dim, /*qkv_bias=*/true,
                   config.windows[static_cast<size_t>(index)]},
                  index),
        mlp_norm(path / "post_attention_layernorm", config.hidden, config.norm_eps),
        mlp(path / "mlp", config.hidden, config.intermediate) {}

  std::string attention_scope;
  std::string mlp_scope;
  RmsNorm input_norm;
  Attention attention;
  RmsNorm mlp_norm;
  GatedMlp mlp;
};

Decoder::Decoder(const WeightPath& path, const DecoderConfig& config, const std::string& name)
    : config_(config),
      dtype_(path.dtype()),
      device_(path.device()),
      rope_(config.rope, path.dtype()),
      norm_(path / "norm", config.hidden, config.norm_eps) {
  for (int64_t i = 0; i < config.layers; ++i) {
    layers_.push_back(
        std::make_unique<Layer>(path / "layers" / i, config, i, name + ".layers." + std::to_string(i)));
  }
}

Decoder::~Decoder() = default;

KvCacheShape Decoder::cache_shape() const {
  return {config_.layers, config_.kv_heads, config_.head_dim, dtype_, device_};
}

at::Tensor Decoder::prefill(const at::Tensor& inputs, const at::Tensor& positions, KvCache& cache) {
  const int64_t tokens = inputs.size(0);
  cache.reserve(tokens);
  const RopeRows rope = rope_.rows(positions).to(device_);
  std::vector<CacheSlot> slots;
  for (int64_t i = 0; i < tokens; ++i) slots.push_back({&cache, i});
  at::Tensor x = inputs;
  for (const auto& layer : layers_) {
    {
      const Scope scope(layer->attention_scope);
      x = layer->attention.prefill(layer->input_norm.forward(x), x, rope, slots);
    }
    const Scope scope(layer->mlp_scope);
    x = layer->mlp.prefill(layer->mlp_norm.forward(x), x);
  }
  cache.advance(tokens);
  return norm_.forward(x);
}

at::Tensor Decoder::decode(const at::Tensor& inputs, c10::ArrayRef<DecodeRow> rows) {
  at::Tensor positions = at::empty({3, static_cast<int64_t>(rows.size())}, at::kLong);
  auto on_axis = positions.accessor<int64_t, 2>();
  std::vector<CacheSlot> slots;
  for (size_t i = 0; i < rows.size(); ++i) {
    slots.push_back({rows[i].cache, rows[i].cache->length()});
    for (int64_t axis = 0; axis < 3; ++axis) on_axis[axis][static_cast<int64_t>(i)] = rows[i].position[axis];
  }
  const RopeRows rope = rope_.rows(positions).to(device_);
  at::Tensor x = inputs;
  for (const auto& layer : layers_) {
    {
      const Scope scope(layer->attention_scope);
      x = layer->attention.decode(layer->input_norm.forward(x), x, rope, slots);
    }
    const Scope scope(layer->mlp_scope);
    x = layer->mlp.decode(layer->mlp_norm.forward(x), x);
  }
  for (const DecodeRow& row : rows) row.cache->advance(1);
  return norm_.forward(x);
}

}  // namespace omni
