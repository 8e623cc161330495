// The thinker of Qwen2.5-Omni (https://arxiv.org/abs/2503.20215): prompt in, text out, and for the talker the sum of the
// embedding and of the final hidden state of every token. Reference: Qwen2_5OmniThinkerForConditionalGeneration of
// transformers 5.23.0. Text prompts only: positions are equal on all three axes.
#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "models/autoregressive.h"
#include "profiler/scope.h"
#include "status.h"

namespace omni {
namespace {

Config thinker_config(const EngineConfig& config) {
  return config.checkpoint->config().object("thinker_config");
}

// Released checkpoints carry an output layer whatever their configs say about tying; a file without one is tied.
bool is_tied(const EngineConfig& config) {
  const Config thinker = thinker_config(config);
  const bool may_be = thinker.boolean("tie_word_embeddings", false) ||
                      thinker.object("text_config").boolean("tie_word_embeddings", false);
  return may_be && config.checkpoint->find("thinker.lm_head.weight") == nullptr;
}

class Thinker final : public AutoregressiveEngine {
 public:
  explicit Thinker(const EngineConfig& config)
      : AutoregressiveEngine(config, resolve_dtype(config, "thinker.model.embed_tokens.weight"), "thinker") {
    const DecoderConfig text = DecoderConfig::parse(thinker_config(config).object("text_config"));
    const WeightPath path(&weights(), "thinker", dtype());
    const bool tied = is_tied(config);
    auto head = std::make_unique<Linear>(tied ? path / "model" / "embed_tokens" : path / "lm_head",
                                         text.hidden, text.vocab_size, /*bias=*/false);
    head_weight_ = tied ? &head->weight() : nullptr;
    if (!tied) (path / "model" / "embed_tokens").bind(embedding_, "weight", {text.vocab_size, text.hidden});
    build(path / "model", text, std::move(head));
    weights().check();
  }

 private:
  struct Request final : Sequence {
    using Sequence::Sequence;
    bool emit_rows = false;
  };

  // The rows of the vocabulary [tokens, hidden].
  at::Tensor embed(std::vector<int64_t> tokens) const {
    static const std::string name = "thinker.embed";
    const Scope scope(name);
    const at::Tensor& table = head_weight_ != nullptr ? *head_weight_ : embedding_;
    const at::Tensor ids = at::tensor(tokens, at::TensorOptions().dtype(at::kLong)).to(table.device());
    return table.index_select(0, ids);
  }

  std::vector<std::string_view> param_keys() const override { return {"prompt_token_ids", "emit_rows"}; }

  std::unique_ptr<Sequence> create(const Config& params, SamplingParams sampling) const override {
    const DecoderConfig& config = decoder().config();
    auto request = std::make_unique<Request>(decoder().cache_shape(), config.max_positions);
    request->history = params.integers("prompt_token_ids");
    if (request->history.empty()) params.fail("\"prompt_token_ids\": expected at least one token");
    const auto length = static_cast<int64_t>(request->history.size());
    if (length > config.max_positions) {
      params.fail("\"prompt_token_ids\": " + std::to_string(length) + " tokens are too many, the model has " +
                  std::to_string(config.max_positions) + " positions (max_position_embeddings)");
    }
    for (const int64_t token : request->history) {
      if (token >= 0 && token < config.vocab_size) continue;
      params.fail("\"prompt_token_ids\": token " + std::to_string(token) +
                  " is outside of the vocabulary of " + std::to_string(config.vocab_size));
    }
    request->sampling = std::move(sampling);
    request->emit_rows = params.boolean("emit_rows", false);
    request->hands_on_rng = request->emit_rows;
    return request;
  }

  void accept(Sequence&, const EngineInput& input) override {
    if (input.tokens.empty() && input.tensors.empty()) return;
    throw Error(OMNI_INVALID_ARGUMENT,
                "qwen2_5_omni.thinker: expected no tokens, and no tensor besides \"rng_state\"" +
                    (input.tensors.empty() ? "" : ", found \"" + input.tensors[0].name + "\""));
  }

  Need need(const Sequence&) const override { return Need::kNothing; }

  at::Tensor prefill_inputs(Sequence& sequence) override { return embed(sequence.history); }

  at::Tensor decode_inputs(c10::ArrayRef<Sequence*> sequences) override {
    std::vector<int64_t> tokens;
    for (const Sequence* sequence : sequences) tokens.push_back(sequence->history.back());
    return embed(std::move(tokens));
  }

  void emit(const Sequence& sequence, const at::Tensor& inputs, const at::Tensor& hidden,
            SequenceResult& result) const override {
    const auto& request = static_cast<const Request&>(sequence);
    if (!request.emit_rows) return;
    result.tensors.push_back({sequence.generated == 0 ? "prompt_rows" : "reply_rows", hidden + inputs});
  }

  bool shows_stop_token() const override { return true; }
  nlohmann::json network_info() const override { return nlohmann::json::object(); }

  at::Tensor embedding_;                     // [vocab_size, hidden], undefined if tied
  const at::Tensor* head_weight_ = nullptr;  // the output layer's, if tied
};

}  // namespace

std::unique_ptr<Engine> open_qwen2_5_omni_thinker(const EngineConfig& config) {
  return std::make_unique<Thinker>(config);
}

}  // namespace omni
