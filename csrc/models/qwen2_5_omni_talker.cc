// The talker of Qwen2.5-Omni (https://arxiv.org/abs/2503.20215): the thinker's rows in, codec ids out, 50 a second of
// speech. Reference: Qwen2_5OmniTalkerForConditionalGeneration of transformers 5.23.0, and the hand-over in
// Qwen2_5OmniForConditionalGeneration.generate.
//
// Prompt: the thinker's rows, the speaker's token, the thinker's first reply row. Every later step adds the embedding of
// the last code and the next reply row, then once the end of text, then the text padding for ever.
//
// The reference's talker means to add the codec embeddings of padding and start to the last two rows of the prompt, but
// only where it is given an attention mask, and generate() of 5.23.0 drops a mask without padding before it gets there:
// they are never added. (4.57 adds them.) This follows 5.23.0, where codes are compared.
#include <ATen/ATen.h>

#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "models/autoregressive.h"
#include "profiler/scope.h"
#include "runtime/speakers.h"
#include "status.h"

namespace omni {
namespace {

// The ids of config.json that the talker needs besides its dimensions.
struct TalkerTokens {
  int64_t text_end;
  int64_t text_pad;
  int64_t codec_start;
  int64_t codec_end;
  int64_t codec_pad;
  int64_t codec_mask;
};

int64_t id_below(const Config& config, const char* key, int64_t fallback, int64_t vocab_size,
                 const char* whose) {
  const int64_t id = config.integer(key, fallback);
  if (id < 0 || id >= vocab_size) {
    config.fail("\"" + std::string(key) + "\": expected an id below " + whose + " = " +
                std::to_string(vocab_size) + ", found " + std::to_string(id));
  }
  return id;
}

TalkerTokens parse_tokens(const Config& talker, int64_t codec_vocab, int64_t text_vocab) {
  const char* text = "the thinker's vocab_size";
  const char* codec = "the talker's vocab_size";
  return {id_below(talker, "tts_text_end_token_id", 151861, text_vocab, text),
          id_below(talker, "tts_text_pad_token_id", 151859, text_vocab, text),
          id_below(talker, "tts_codec_start_token_id", 8293, codec_vocab, codec),
          id_below(talker, "tts_codec_end_token_id", 8294, codec_vocab, codec),
          id_below(talker, "tts_codec_pad_token_id", 8292, codec_vocab, codec),
          id_below(talker, "tts_codec_mask_token_id", 8296, codec_vocab, codec)};
}

// head_dim is 128 in files that do not say, not hidden / heads.
DecoderConfig parse_decoder(const Config& talker) {
  return DecoderConfig::parse(talker, /*default_head_dim=*/128);
}

class Talker final : public AutoregressiveEngine {
 public:
  explicit Talker(const EngineConfig& config)
      : AutoregressiveEngine(config, resolve_dtype(config, "talker.model.embed_tokens.weight"), "talker"),
        speakers_(read_speakers(*config.checkpoint)) {
    const Config file = config.checkpoint->config();
    const Config talker = file.object("talker_config");
    const Config text = file.object("thinker_config").object("text_config");
    const DecoderConfig dimensions = parse_decoder(talker);
    text_vocab_ = text.positive("vocab_size");
    width_ = talker.positive("embedding_size");
    if (const int64_t rows = text.positive("hidden_size"); rows != width_) {
      talker.fail("\"embedding_size\": expected the thinker's hidden_size = " + std::to_string(rows) +
                  ", found " + std::to_string(width_));
    }
    tokens_ = parse_tokens(talker, dimensions.vocab_size, text_vocab_);
    for (const Speaker& speaker : speakers_) {
      if (speaker.bos_token >= 0 && speaker.bos_token < text_vocab_) continue;
      throw Error(OMNI_INVALID_ARGUMENT, "spk_dict.pt: speaker \"" + speaker.name + "\": bos_token " +
                                             std::to_string(speaker.bos_token) +
                                             " is outside of the thinker's vocabulary of " +
                                             std::to_string(text_vocab_));
    }
    const WeightPath path(&weights(), "talker", dtype());
    (path / "model" / "embed_tokens").bind(codec_embedding_, "weight", {dimensions.vocab_size, width_});
    projection_ =
        std::make_unique<Linear>(path / "thinker_to_talker_proj", width_, dimensions.hidden, /*bias=*/true);
    build(path / "model", dimensions,
          std::make_unique<Linear>(path / "codec_head", dimensions.hidden, dimensions.vocab_size,
                                   /*bias=*/false));
    weights().check();
    check_text_embedding();
  }

 private:
  struct Request final : Sequence {
    using Sequence::Sequence;
    int64_t prompt_tokens = 0;
    int64_t speaker_token = 0;
    int64_t prompt_rows_fed = 0;
    std::vector<at::Tensor> prompt_rows;  // pieces [n, width]; dropped after the prefill
    std::deque<at::Tensor> reply_rows;    // [width], not used yet
    int64_t reply_rows_fed = 0;
    at::ScalarType rows_dtype = at::kFloat;  // the thinker's: its embeddings are rounded to it
    bool text_ended = false;                 // the end-of-text row has been used
  };

  static constexpr const char* kTextEmbedding = "thinker.model.embed_tokens.weight";

  // Only a few rows of the thinker's embedding are needed: they are read from the file, not bound.
  void check_text_embedding() const {
    const TensorInfo* info = weights().checkpoint().find(kTextEmbedding);
    const std::vector<int64_t> expected = {text_vocab_, width_};
    if (info == nullptr) {
      throw Error(OMNI_INVALID_ARGUMENT, "checkpoint " + weights().checkpoint().folder() + ": tensor \"" +
                                             kTextEmbedding +
                                             "\" is missing, the talker reads the speaker's row from it");
    }
    if (info->shape != expected || !at::isFloatingType(info->dtype)) {
      throw Error(OMNI_INVALID_ARGUMENT, info->file + ": tensor \"" + kTextEmbedding +
                                             "\": expected floats " + shape_text(expected) + ", found " +
                                             shape_text(info->shape));
    }
  }

  // One row [width] of the thinker's embedding as the thinker would have made it.
  at::Tensor text_row(int64_t token, at::ScalarType rows_dtype) const {
    const TensorInfo& info = *weights().checkpoint().find(kTextEmbedding);
    const int64_t row_bytes = info.bytes / text_vocab_;
    at::Tensor row = at::empty({width_}, at::TensorOptions().dtype(info.dtype));
    std::memcpy(row.mutable_data_ptr(), info.data + token * row_bytes, static_cast<size_t>(row_bytes));
    return row.to(rows_dtype).to(at::TensorOptions().dtype(dtype()).device(weights().device()));
  }

  at::Tensor codec_row(int64_t token) const { return codec_embedding_[token]; }

  std::vector<std::string_view> param_keys() const override { return {"prompt_tokens", "speaker"}; }

  std::unique_ptr<Sequence> create(const Config& params, SamplingParams sampling) const override {
    const DecoderConfig& config = decoder().config();
    auto request = std::make_unique<Request>(decoder().cache_shape(), config.max_positions);
    request->prompt_tokens = params.positive("prompt_tokens");
    if (request->prompt_tokens > config.max_positions - 2) {
      params.fail("\"prompt_tokens\": " + std::to_string(request->prompt_tokens) +
                  " and 2 are too many, the talker has " + std::to_string(config.max_positions) +
                  " positions (max_position_embeddings)");
    }
    request->speaker_token = find_speaker(speakers_, params.string("speaker", "")).bos_token;
    sampling.suppress_tokens.push_back(tokens_.codec_start);
    sampling.stop_token_ids.push_back(tokens_.codec_end);
    sampling.stop_token_ids.push_back(tokens_.codec_pad);
    request->sampling = std::move(sampling);
    request->history.assign(static_cast<size_t>(request->prompt_tokens), tokens_.codec_mask);
    request->history.push_back(tokens_.codec_pad);
    request->history.push_back(tokens_.codec_start);
    return request;
  }

  // Checks a fed piece of rows and brings it to the talker's dtype and device.
  at::Tensor checked_rows(const NamedTensor& named) const {
    const at::Tensor& rows = named.tensor;
    if (rows.dim() != 2 || rows.size(1) != width_ || !at::isFloatingType(rows.scalar_type())) {
      throw Error(OMNI_INVALID_ARGUMENT, "qwen2_5_omni.talker: \"" + named.name +
                                             "\": expected floats [rows, " + std::to_string(width_) +
                                             "], found " + c10::toString(rows.scalar_type()) + " " +
                                             shape_text(rows.sizes().vec()));
    }
    return rows.to(at::TensorOptions().dtype(dtype()).device(weights().device()));
  }

  void accept(Sequence& sequence, const EngineInput& input) override {
    auto& request = static_cast<Request&>(sequence);
    if (!input.tokens.empty())
      throw Error(OMNI_INVALID_ARGUMENT, "qwen2_5_omni.talker: expected tensors, found tokens");
    std::vector<at::Tensor> prompt;
    std::vector<at::Tensor> reply;
    int64_t prompt_rows = request.prompt_rows_fed;
    for (const NamedTensor& named : input.tensors) {
      if (named.name != "prompt_rows" && named.name != "reply_rows") {
        throw Error(
            OMNI_INVALID_ARGUMENT,
            "qwen2_5_omni.talker: expected \"prompt_rows\" or \"reply_rows\", found \"" + named.name + "\"");
      }
      const bool is_prompt = named.name == "prompt_rows";
      (is_prompt ? prompt : reply).push_back(checked_rows(named));
      if (is_prompt) prompt_rows += named.tensor.size(0);
    }
    if (prompt_rows > request.prompt_tokens || (input.last && prompt_rows < request.prompt_tokens)) {
      throw Error(OMNI_INVALID_ARGUMENT, "qwen2_5_omni.talker: \"prompt_rows\": expected " +
                                             std::to_string(request.prompt_tokens) + " rows in all, found " +
                                             std::to_string(prompt_rows));
    }
    if (!input.tensors.empty()) request.rows_dtype = input.tensors.back().tensor.scalar_type();
    request.prompt_rows_fed = prompt_rows;
    for (at::Tensor& rows : prompt) request.prompt_rows.push_back(std::move(rows));
    for (const at::Tensor& rows : reply) {
      for (int64_t i = 0; i < rows.size(0); ++i) request.reply_rows.push_back(rows[i]);
      request.reply_rows_fed += rows.size(0);
    }
  }

  Need need(const Sequence& sequence) const override {
    const auto& request = static_cast<const Request&>(sequence);
    if (request.input_ended) {
      // A reply of one token has no row: there is nothing to say.
      return request.reply_rows_fed == 0 ? Need::kNoStep : Need::kNothing;
    }
    if (request.prompt_rows_fed < request.prompt_tokens || request.reply_rows.empty()) return Need::kInput;
    return Need::kNothing;
  }

  // The text row of the next token [width].
  at::Tensor next_text_row(Request& request) const {
    if (!request.reply_rows.empty()) {
      at::Tensor row = std::move(request.reply_rows.front());
      request.reply_rows.pop_front();
      return row;
    }
    const int64_t token = request.text_ended ? tokens_.text_pad : tokens_.text_end;
    request.text_ended = true;
    return text_row(token, request.rows_dtype);
  }

  at::Tensor prefill_inputs(Sequence& sequence) override {
    auto& request = static_cast<Request&>(sequence);
    std::vector<at::Tensor> rows = std::move(request.prompt_rows);
    request.prompt_rows.clear();
    rows.push_back(text_row(request.speaker_token, request.rows_dtype).unsqueeze(0));
    rows.push_back(next_text_row(request).unsqueeze(0));
    return projection_->forward(at::cat(rows));
  }

  at::Tensor decode_inputs(c10::ArrayRef<Sequence*> sequences) override {
    std::vector<at::Tensor> rows;
    for (Sequence* sequence : sequences) {
      rows.push_back(codec_row(sequence->history.back()) + next_text_row(static_cast<Request&>(*sequence)));
    }
    return linear_decode(at::stack(rows), *projection_, at::Tensor());
  }

  void emit(const Sequence&, const at::Tensor&, const at::Tensor&, SequenceResult&) const override {}

  bool shows_stop_token() const override { return false; }

  nlohmann::json network_info() const override {
    std::vector<std::string> names;
    for (const Speaker& speaker : speakers_) names.push_back(speaker.name);
    return {{"speakers", names}, {"default_speaker", default_speaker(speakers_).name}};
  }

  std::vector<Speaker> speakers_;
  TalkerTokens tokens_{};
  int64_t text_vocab_ = 0;
  int64_t width_ = 0;           // of rows, the thinker's hidden size
  at::Tensor codec_embedding_;  // [vocab_size, width]
  std::unique_ptr<Linear> projection_;
};

}  // namespace

std::unique_ptr<Engine> open_qwen2_5_omni_talker(const EngineConfig& config) {
  return std::make_unique<Talker>(config);
}

}  // namespace omni
