// The text decoder: prefill against decode, plain ops against kernels, windows, batches of any make-up, and configs that
// contradict themselves.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "nn/decoder.h"
#include "runtime/checkpoint.h"
#include "runtime/weights.h"
#include "tests/expect_error.h"
#include "tests/temp_checkpoint.h"

namespace omni {
namespace {

const nlohmann::json kModel = nlohmann::json::parse(R"({
  "vocab_size": 11, "hidden_size": 24, "intermediate_size": 37, "num_hidden_layers": 3, "num_attention_heads": 6,
  "num_key_value_heads": 2, "head_dim": 10, "max_position_embeddings": 300,
  "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 2]}})");

// A decoder over random weights, in a checkpoint of its own.
class RandomDecoder {
 public:
  explicit RandomDecoder(const nlohmann::json& model, at::ScalarType dtype)
      : generator_(at::detail::createCPUGenerator(3)) {
    const DecoderConfig config = DecoderConfig::parse(Config(&model, "config.json"));
    const int64_t queries = config.heads * config.head_dim;
    const int64_t keys = config.kv_heads * config.head_dim;
    std::vector<FileTensor> tensors;
    const auto add = [&](const std::string& name, const std::vector<int64_t>& shape) {
      const bool norm = name.find("norm") != std::string::npos;
      const at::Tensor values = at::randn(shape, generator_) * 0.3 + (norm ? 1 : 0);
      tensors.push_back({name, "F32", shape,
                         std::string(static_cast<const char*>(values.const_data_ptr()), values.nbytes())});
    };
    for (int64_t i = 0; i < config.layers; ++i) {
      const std::string layer = "m.layers." + std::to_string(i) + ".";
      for (const auto& [name, rows] :
           std::vector<std::pair<std::string, int64_t>>{{"q", queries}, {"k", keys}, {"v", keys}}) {
        add(layer + "self_attn." + name + "_proj.weight", {rows, config.hidden});
        add(layer + "self_attn." + name + "_proj.bias", {rows});
      }
      add(layer + "self_attn.o_proj.weight", {config.hidden, queries});
      add(layer + "mlp.gate_proj.weight", {config.intermediate, config.hidden});
      add(layer + "mlp.up_proj.weight", {config.intermediate, config.hidden});
      add(layer + "mlp.down_proj.weight", {config.hidden, config.intermediate});
      add(layer + "input_layernorm.weight", {config.hidden});
      add(layer + "post_attention_layernorm.weight", {config.hidden});
    }
    add("m.norm.weight", {config.hidden});
    folder_.write("config.json", "{}");
    folder_.write("model.safetensors", safetensors_file(tensors));
    weights_ = std::make_unique<Weights>(Checkpoint::open(folder_.path()), at::kCPU);
    decoder_ = std::make_unique<Decoder>(WeightPath(weights_.get(), "m", dtype), config, "test");
    weights_->check();
    while (weights_->load_next()) {
    }
  }

  Decoder& operator*() { return *decoder_; }
  Decoder* operator->() { return decoder_.get(); }

 private:
  TempFolder folder_;
  at::Generator generator_;
  std::unique_ptr<Weights> weights_;
  std::unique_ptr<Decoder> decoder_;
};

at::Tensor text_positions(int64_t tokens) {
  return at::arange(tokens, at::kLong).unsqueeze(0).repeat({3, 1});
}

at::Tensor inputs(int64_t tokens, at::ScalarType dtype, uint64_t seed) {
  return at::randn({tokens, 24}, at::detail::createCPUGenerator(seed), at::TensorOptions()).to(dtype);
}

// One sequence: all its inputs are known beforehand, so that any way of running it must give the same rows.
struct Sequence {
  Sequence(Decoder& decoder, int64_t prompt, int64_t total, uint64_t seed)
      : cache(decoder.cache_shape(), decoder.config().max_positions),
        rows(inputs(total, decoder.cache_shape().dtype, seed)),
        prompt(prompt) {}

  void prefill(Decoder& decoder) {
    outputs.push_back(decoder.prefill(rows.narrow(0, 0, prompt), text_positions(prompt), cache));
  }
  bool ended() const { return cache.length() == rows.size(0); }
  at::Tensor all() const { return at::cat(outputs); }

  KvCache cache;
  at::Tensor rows;
  int64_t prompt;
  std::vector<at::Tensor> outputs;
};

void decode(Decoder& decoder, const std::vector<Sequence*>& batch) {
  std::vector<at::Tensor> rows;
  std::vector<DecodeRow> decode_rows;
  for (Sequence* sequence : batch) {
    const int64_t position = sequence->cache.length();
    sequence->cache.reserve(position + 1);
    rows.push_back(sequence->rows[position]);
    decode_rows.push_back({&sequence->cache, {position, position, position}});
  }
  const at::Tensor out = decoder.decode(at::stack(rows), decode_rows);
  for (size_t i = 0; i < batch.size(); ++i)
    batch[i]->outputs.push_back(out.narrow(0, static_cast<int64_t>(i), 1));
}

class DecoderTest : public testing::TestWithParam<at::ScalarType> {
 protected:
  c10::InferenceMode guard_;
};

TEST_P(DecoderTest, DecodeContinuesWhatPrefillWouldHaveComputed) {
  nlohmann::json windowed = kModel;
  windowed.update({{"use_sliding_window", true}, {"sliding_window", 7}, {"max_window_layers", 1}});
  for (const nlohmann::json& model : {kModel, windowed}) {
    RandomDecoder decoder(model, GetParam());
    Sequence stepped(*decoder, 5, 90, 4);
    stepped.prefill(*decoder);
    while (!stepped.ended()) decode(*decoder, {&stepped});
    Sequence whole(*decoder, 90, 90, 4);
    whole.prefill(*decoder);
    const double tolerance = GetParam() == at::kFloat ? 2e-5 : GetParam() == at::kHalf ? 3e-2 : 2e-1;
    EXPECT_LE((stepped.all().to(at::kFloat) - whole.all().to(at::kFloat)).abs().max().item<double>(),
              tolerance);
  }
}

TEST_P(DecoderTest, AWindowHidesWhatLiesBeforeIt) {
  nlohmann::json model = kModel;
  model.update({{"num_hidden_layers", 1},
                {"use_sliding_window", true},
                {"sliding_window", 4},
                {"max_window_layers", 0}});
  RandomDecoder decoder(model, GetParam());
  Sequence one(*decoder, 10, 12, 5);
  Sequence other(*decoder, 10, 12, 5);
  other.rows.narrow(0, 0, 6).add_(1);  // before the windows of positions 9, 10 and 11
  for (Sequence* sequence : {&one, &other}) {
    sequence->prefill(*decoder);
    while (!sequence->ended()) decode(*decoder, {sequence});
  }
  EXPECT_TRUE(at::equal(one.all().slice(0, 10), other.all().slice(0, 10)));
  EXPECT_FALSE(at::equal(one.all()[8], other.all()[8]));
}

// 16 sequences of different lengths that join and leave while others run: each gets the bits that it gets alone.
TEST_P(DecoderTest, BitsDoNotDependOnTheBatch) {
  RandomDecoder decoder(kModel, GetParam());
  constexpr int kSequences = 16;
  std::vector<std::unique_ptr<Sequence>> batched;
  for (int i = 0; i < kSequences; ++i) {
    batched.push_back(
        std::make_unique<Sequence>(*decoder, 1 + 5 * i % 41, 2 + 5 * i % 41 + 7 * i % 33, 100 + i));
  }
  for (int step = 0; step < 200; ++step) {
    std::vector<Sequence*> batch;
    for (int i = 0; i < kSequences; ++i) {
      Sequence& sequence = *batched[(i + step) % kSequences];
      const int start = 3 * ((i + step) % kSequences);
      if (step < start || (sequence.ended() && !sequence.outputs.empty())) continue;
      if (sequence.outputs.empty()) {
        sequence.prefill(*decoder);
      } else {
        batch.push_back(&sequence);
      }
    }
    if (!batch.empty()) decode(*decoder, batch);
  }
  for (int i = 0; i < kSequences; ++i) {
    SCOPED_TRACE(i);
    ASSERT_TRUE(batched[i]->ended());
    Sequence alone(*decoder, batched[i]->prompt, batched[i]->rows.size(0), 100 + i);
    alone.prefill(*decoder);
    while (!alone.ended()) decode(*decoder, {&alone});
    EXPECT_TRUE(at::equal(alone.all(), batched[i]->all()));
  }
}

INSTANTIATE_TEST_SUITE_P(All, DecoderTest, testing::Values(at::kFloat, at::kBFloat16, at::kHalf),
                         [](const auto& info) { return c10::toString(info.param); });

// ---- kernels against plain ops ----------------------------------------------------------------------------------

TEST(DecoderParts, PlainTwinsAgree) {
  const c10::InferenceMode guard;
  const AttentionConfig config = {24, 6, 2, 10, true, 9};
  const KvCacheShape shape = {1, 2, 10, at::kFloat};
  std::vector<std::unique_ptr<KvCache>> caches;
  std::vector<CacheSlot> slots;
  for (const int64_t length : {0, 5, 30}) {
    caches.push_back(std::make_unique<KvCache>(shape, 64));
    caches.back()->reserve(length + 1);
    caches.back()->keys(0).normal_();
    caches.back()->values(0).normal_();
    slots.push_back({caches.back().get(), length});
  }
  Rope rope({10, 10000.0, {2, 1, 2}}, at::kFloat);
  const RopeRows rows = rope.rows(at::tensor({0, 5, 30, 1, 7, 20, 2, 9, 10}, at::kLong).view({3, 3}));
  at::Tensor query = at::randn({3, 60});
  at::Tensor plain_query = query.clone();
  const at::Tensor key = at::randn({3, 20});
  const at::Tensor value = at::randn({3, 20});
  rotate_and_store(config, 0, query, key, value, rows, slots);
  std::vector<at::Tensor> stored;
  for (const CacheSlot& slot : slots) stored.push_back(slot.cache->both(0).select(2, slot.position).clone());
  rotate_and_store_plain(config, 0, plain_query, key, value, rows, slots);
  EXPECT_TRUE(at::allclose(query, plain_query, 1e-5, 1e-5));
  for (size_t i = 0; i < slots.size(); ++i) {
    EXPECT_TRUE(at::allclose(stored[i], slots[i].cache->both(0).select(2, slots[i].position), 1e-5, 1e-5));
  }
  EXPECT_TRUE(at::allclose(attention_decode(config, 0, query, slots),
                           attention_decode_plain(config, 0, query, slots), 1e-5, 1e-5));

  const at::Tensor x = at::randn({3, 24});
  const Linear layer(at::randn({33, 24}), at::randn({33}));
  const at::Tensor residual = at::randn({3, 33});
  EXPECT_TRUE(
      at::allclose(linear_decode(x, layer, residual), linear_decode_plain(x, layer, residual), 1e-5, 1e-5));
  const RmsNorm norm(at::randn({24}), 1e-6);
  EXPECT_TRUE(at::allclose(norm.forward(x), norm.forward_plain(x), 1e-5, 1e-5));
  EXPECT_TRUE(at::allclose(silu_mul(x, x), silu_mul_plain(x, x), 1e-5, 1e-5));
}

TEST(DecoderParts, SeveralLayersInOnePassEqualEachAlone) {
  const c10::InferenceMode guard;
  const at::Tensor x = at::randn({5, 40});
  const Linear a(at::randn({70, 40}), at::randn({70}));
  const Linear b(at::randn({3, 40}), at::Tensor());
  const Linear c(at::randn({16, 40}), at::randn({16}));
  const std::vector<at::Tensor> together = linear_decode(x, {&a, &b, &c});
  EXPECT_TRUE(at::equal(together[0], linear_decode(x, a, at::Tensor())));
  EXPECT_TRUE(at::equal(together[1], linear_decode(x, b, at::Tensor())));
  EXPECT_TRUE(at::equal(together[2], linear_decode(x, c, at::Tensor())));
}

TEST(Rope, SectionsTakeTheirAxis) {
  const std::vector<int64_t> sections = {2, 1, 2, 1};  // axes 0, 0, 1, 2, 2, 0
  Rope rope({12, 100.0, sections}, at::kFloat);
  const at::Tensor positions = at::tensor({3, 300, 5, 500, 7, 700}, at::kLong).view({3, 2});
  const RopeRows rows = rope.rows(positions);
  const std::vector<int64_t> axes = {0, 0, 1, 2, 2, 0};
  for (int64_t token = 0; token < 2; ++token) {
    for (int64_t i = 0; i < 6; ++i) {
      const double angle =
          positions[axes[i]][token].item<double>() / std::pow(100.0, 2.0 * static_cast<double>(i) / 12);
      EXPECT_NEAR(rows.cosines[token][i].item<double>(), std::cos(angle), 1e-4);
      EXPECT_NEAR(rows.sines[token][i].item<double>(), std::sin(angle), 1e-4);
    }
  }
}

// ---- configs ----------------------------------------------------------------------------------------------------

DecoderConfig parse(const nlohmann::json& model, int64_t default_head_dim = 0) {
  return DecoderConfig::parse(Config(&model, "config.json: text_config"), default_head_dim);
}

TEST(DecoderConfig, ReadsBothSpellings) {
  nlohmann::json old = kModel;
  old.erase("rope_parameters");
  old.update(nlohmann::json::parse(
      R"({"rope_theta": 500.0, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 3]},
                                       "use_sliding_window": true, "sliding_window": 9, "max_window_layers": 2})"));
  const DecoderConfig config = parse(old);
  EXPECT_EQ(config.rope.theta, 500.0);
  EXPECT_EQ(config.rope.sections, (std::vector<int64_t>{1, 1, 3}));
  EXPECT_EQ(config.windows, (std::vector<int64_t>{0, 0, 9}));
  nlohmann::json typed = kModel;
  typed.update(nlohmann::json::parse(R"({"use_sliding_window": true, "sliding_window": 9,
      "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]})"));
  EXPECT_EQ(parse(typed).windows, (std::vector<int64_t>{9, 0, 9}));
  EXPECT_EQ(parse(typed).rope.theta, 10000.0);
}

TEST(DecoderConfig, DefaultsAreTheReferences) {
  nlohmann::json model = kModel;
  for (const char* key : {"rope_parameters", "num_key_value_heads", "max_position_embeddings"})
    model.erase(key);
  model["head_dim"] = 128;
  const DecoderConfig config = parse(model);
  EXPECT_EQ(config.kv_heads, 6);
  EXPECT_EQ(config.max_positions, 32768);
  EXPECT_EQ(config.rope.theta, 1e6);
  EXPECT_EQ(config.rope.sections, (std::vector<int64_t>{16, 24, 24}));
  EXPECT_EQ(config.norm_eps, 1e-6);
  EXPECT_EQ(config.windows, (std::vector<int64_t>{0, 0, 0}));
  model.erase("head_dim");
  EXPECT_EQ(parse(model, 128).head_dim, 128);
  model["rope_parameters"] = {{"mrope_section", {2, 0, 0}}};
  EXPECT_EQ(parse(model).head_dim, 4);
}

struct Fault {
  const char* name;
  const char* patch;  // merged into the model; null removes a key
  omni_code code;
  std::vector<std::string> parts;
};

TEST(DecoderConfig, NamesWhatContradictsItself) {
  const omni_code bad = OMNI_INVALID_ARGUMENT;
  const std::vector<Fault> faults = {
      {"heads",
       R"({"num_key_value_heads": 4})",
       bad,
       {"\"num_key_value_heads\"", "num_attention_heads = 6", "found 4"}},
      {"no head dim",
       R"({"head_dim": null, "num_attention_heads": 7, "num_key_value_heads": 7})",
       bad,
       {"\"num_attention_heads\"", "hidden_size = 24", "found 7"}},
      {"odd head", R"({"head_dim": 9})", bad, {"\"head_dim\"", "even", "found 9"}},
      {"sections",
       R"({"rope_parameters": {"mrope_section": [2, 2, 2]}})",
       bad,
       {"rope_parameters: \"mrope_section\"", "head dimension 10", "[2, 2, 2]"}},
      {"negative section",
       R"({"rope_parameters": {"mrope_section": [6, -1]}})",
       bad,
       {"\"mrope_section\"", "[6, -1]"}},
      {"theta", R"({"rope_parameters": {"rope_theta": 0}})", bad, {"\"rope_theta\"", "> 0"}},
      {"rope kind",
       R"({"rope_parameters": {"rope_type": "yarn"}})",
       OMNI_UNIMPLEMENTED,
       {"\"rope_type\"", "\"yarn\""}},
      {"activation", R"({"hidden_act": "gelu"})", bad, {"\"hidden_act\"", "\"silu\"", "\"gelu\""}},
      {"no layers", R"({"num_hidden_layers": 0})", bad, {"\"num_hidden_layers\"", "> 0", "found 0"}},
      {"missing", R"({"intermediate_size": null})", bad, {"\"intermediate_size\"", "missing"}},
      {"eps", R"({"rms_norm_eps": -1})", bad, {"\"rms_norm_eps\""}},
      {"short list",
       R"({"layer_types": ["full_attention"]})",
       bad,
       {"\"layer_types\"", "num_hidden_layers = 3"}},
      {"windows",
       R"({"layer_types": ["full_attention", "sliding_attention", "full_attention"]})",
       bad,
       {"\"layer_types\"", "\"sliding_window\""}},
      {"kind of layer",
       R"({"layer_types": ["full_attention", "linear", "full_attention"]})",
       bad,
       {"\"layer_types\"", "\"linear\""}},
  };
  for (const Fault& fault : faults) {
    SCOPED_TRACE(fault.name);
    nlohmann::json model = kModel;
    model.merge_patch(nlohmann::json::parse(fault.patch));
    std::vector<std::string> parts = fault.parts;
    parts.emplace_back("config.json: text_config");
    expect_error([&] { parse(model); }, fault.code, parts);
  }
}

}  // namespace
}  // namespace omni
