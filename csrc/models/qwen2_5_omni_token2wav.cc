// Qwen2.5-Omni's token2wav as an engine: codec codes to speech at 24 kHz, always in float32.
//
// A sequence waits for codes: for all of them in mode "full" (and for the generator's state, if that comes from the
// stage before), for those of its next chunk in mode "stream". It draws their noise, goes through the diffusion
// transformer one Runge-Kutta step per call, then through the vocoder. Sequences are computed one after the other, never
// together, so that each gets the same bits alone and among others.
#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "models/engine.h"
#include "models/qwen2_5_omni_bigvgan.h"
#include "models/qwen2_5_omni_chunks.h"
#include "models/qwen2_5_omni_dit.h"
#include "models/qwen2_5_omni_speech.h"
#include "runtime/rng.h"
#include "runtime/speakers.h"
#include "runtime/weights.h"
#include "status.h"

namespace omni {
namespace qwen2_5_omni {
namespace {

constexpr const char* kPrefix = "token2wav";
constexpr int64_t kSampleRate = 24000;
// The times of a schedule are computed together and kept: this bounds their memory.
constexpr int64_t kMaxNumSteps = 100;

// The params of admit.
struct Settings {
  std::string speaker;  // empty: the default one
  bool rng_from_upstream;
  std::optional<uint64_t> seed;
  int64_t num_steps;
  double guidance_scale;
  std::optional<double> sway_coefficient;
  bool stream;  // in chunks, while codes come
  ChunkSizes chunks;

  static Settings parse(const nlohmann::json& json);
};

// A number of codes; bounded, so that frames can be counted.
std::optional<int64_t> codes_of(const Config& params, const char* key, int64_t least) {
  constexpr int64_t kMost = 1 << 20;
  if (!params.has(key)) return std::nullopt;
  const int64_t value = params.integer(key);
  if (value < least || value > kMost) {
    params.fail(std::string(key) + ": expected " + std::to_string(least) + " to " + std::to_string(kMost) +
                ", found " + std::to_string(value));
  }
  return value;
}

Settings Settings::parse(const nlohmann::json& json) {
  const Config params(&json, "token2wav request");
  params.reject_unknown({"speaker", "seed", "rng_from_upstream", "num_steps", "guidance_scale",
                         "sway_coefficient", "mode", "initial_codec_chunk_frames", "codec_chunk_frames",
                         "codec_right_context_frames"});
  Settings s;
  s.speaker = params.string("speaker", "");
  s.rng_from_upstream = params.boolean("rng_from_upstream", false);
  if (params.has("seed")) s.seed = static_cast<uint64_t>(params.integer("seed"));
  if (s.seed.has_value() == s.rng_from_upstream)
    params.fail("expected either seed or rng_from_upstream: true");
  s.num_steps = params.integer("num_steps", 10);
  if (s.num_steps < 1 || s.num_steps > kMaxNumSteps) {
    params.fail("num_steps: expected 1 to " + std::to_string(kMaxNumSteps) + ", found " +
                std::to_string(s.num_steps));
  }
  s.guidance_scale = params.number("guidance_scale", 0.5);
  // Null means an even schedule, a missing key the usual one.
  if (!json.contains("sway_coefficient") || params.has("sway_coefficient")) {
    s.sway_coefficient = params.number("sway_coefficient", -1.0);
  }
  const std::string mode = params.string("mode", "full");
  if (mode != "full" && mode != "stream")
    params.fail("mode: expected \"full\" or \"stream\", found \"" + mode + "\"");
  s.stream = mode == "stream";
  if (s.stream && s.rng_from_upstream) {
    params.fail(
        "mode \"stream\" needs a seed: the stage before hands its generator on only when all codes are "
        "there");
  }
  s.chunks.initial = codes_of(params, "initial_codec_chunk_frames", 1);
  s.chunks.usual = codes_of(params, "codec_chunk_frames", 1);
  s.chunks.right_context = codes_of(params, "codec_right_context_frames", 0);
  return s;
}

struct Sequence {
  Settings settings;
  const Speaker* speaker;
  std::unique_ptr<Speech> speech;                 // none when it is over
  omni_sequence_state end = OMNI_SEQUENCE_READY;  // DONE or FAILED when it is over
  omni_code code = OMNI_OK;
  std::string message;
};

class Token2Wav final : public Engine {
 public:
  explicit Token2Wav(const EngineConfig& config);

  void load(int64_t& done, int64_t& total) override;
  nlohmann::json info() const override;
  void admit(uint64_t sequence, const nlohmann::json& params) override;
  void feed(uint64_t sequence, EngineInput input) override;
  std::vector<SequenceResult> step(const std::vector<uint64_t>& sequences) override;
  void release(uint64_t sequence) override;

 private:
  Sequence& find(uint64_t sequence);
  void check_speakers() const;
  nlohmann::json stream_info() const;
  void advance(Sequence& sequence, SequenceResult& result);
  ChunkPlan plan_of(const Settings& settings) const;
  const std::pair<at::Tensor, at::Tensor>& voice_of(const Speaker& speaker);
  std::shared_ptr<const DitSchedule> schedule_of(const Settings& settings);

  EngineConfig config_;
  std::vector<Speaker> speakers_;
  Weights weights_;
  std::unique_ptr<Dit> dit_;
  std::unique_ptr<BigVgan> bigvgan_;
  bool prepared_ = false;
  std::map<uint64_t, Sequence> sequences_;
  std::map<std::string, std::pair<at::Tensor, at::Tensor>> voices_;  // by speaker, when first used
  std::shared_ptr<const DitSchedule> schedule_;                      // the one used last
};

Token2Wav::Token2Wav(const EngineConfig& config)
    : config_(config),
      speakers_(read_speakers(*config.checkpoint)),
      weights_(config.checkpoint, config.device) {
  const Config root = config.checkpoint->config().object("token2wav_config");
  const Config dit_config = root.object("dit_config");
  const Config bigvgan_config = root.object("bigvgan_config");
  const WeightPath path(&weights_, kPrefix, at::kFloat);
  dit_ = std::make_unique<Dit>(DitConfig::parse(dit_config), path / "code2wav_dit_model");
  const BigVganConfig vocoder = BigVganConfig::parse(bigvgan_config);
  if (vocoder.mel_dim != dit_->config().ecapa.mel_dim) {
    bigvgan_config.fail("mel_dim: expected " + std::to_string(dit_->config().ecapa.mel_dim) +
                        " as in dit_config, found " + std::to_string(vocoder.mel_dim));
  }
  bigvgan_ = std::make_unique<BigVgan>(vocoder, path / "code2wav_bigvgan_model");
  weights_.check();
  check_speakers();
}

void Token2Wav::check_speakers() const {
  const DitConfig& config = dit_->config();
  for (const Speaker& speaker : speakers_) {
    const auto fail = [&](const std::string& message) {
      throw Error(OMNI_INVALID_ARGUMENT,
                  config_.checkpoint->path("spk_dict.pt") + ": " + speaker.name + ": " + message);
    };
    if (speaker.cond.size(1) != config.speaker_dim) {
      fail("cond: expected [1, " + std::to_string(config.speaker_dim) + "], found [1, " +
           std::to_string(speaker.cond.size(1)) + "]");
    }
    if (speaker.ref_mel.size(2) != config.ecapa.mel_dim ||
        speaker.ref_mel.size(1) < config.ecapa.min_frames()) {
      fail("ref_mel: expected [1, at least " + std::to_string(config.ecapa.min_frames()) + ", " +
           std::to_string(config.ecapa.mel_dim) + "], found [1, " + std::to_string(speaker.ref_mel.size(1)) +
           ", " + std::to_string(speaker.ref_mel.size(2)) + "]");
    }
  }
}

void Token2Wav::load(int64_t& done, int64_t& total) {
  if (!weights_.load_next() && !prepared_) {
    dit_->prepare();
    bigvgan_->prepare();
    // What requests with the defaults need, so that the first of them does not wait for it.
    voice_of(default_speaker(speakers_));
    schedule_of(Settings::parse({{"seed", 0}}));
    prepared_ = true;
  }
  // The last byte counts when the weights are laid out, not before.
  total = weights_.bytes_total();
  done = prepared_ ? total : std::min(weights_.bytes_done(), total - 1);
}

// How mode "stream" cuts by default, in codes; null if this network cannot.
nlohmann::json Token2Wav::stream_info() const {
  if (!bigvgan_->divisible()) return nullptr;
  const DitConfig& config = dit_->config();
  const ChunkPlan plan(config, bigvgan_->context_frames(), {});
  const auto codes = [&](int64_t frames) { return (frames + config.repeats - 1) / config.repeats; };
  return {{"initial_codec_chunk_frames", codes(plan.initial())},
          {"codec_chunk_frames", codes(plan.usual())},
          {"codec_right_context_frames", codes(plan.right_context())},
          {"vocoder_context_frames", codes(bigvgan_->context_frames())}};
}

nlohmann::json Token2Wav::info() const {
  nlohmann::json names = nlohmann::json::array();
  for (const Speaker& speaker : speakers_) names.push_back(speaker.name);
  return {{"model", config_.model},
          {"dtype", "float32"},
          {"device", config_.device.str()},
          {"parameters", weights_.parameters()},
          {"weight_bytes", weights_.bytes_total()},
          {"unused_tensors", weights_.unused_under(kPrefix)},
          {"speakers", names},
          {"default_speaker", default_speaker(speakers_).name},
          {"sample_rate", kSampleRate},
          {"samples_per_code", bigvgan_->samples(dit_->config().repeats)},
          {"stream", stream_info()},
          {"limits", {{"max_codes", dit_->config().max_frames / dit_->config().repeats}}}};
}

Sequence& Token2Wav::find(uint64_t sequence) {
  const auto found = sequences_.find(sequence);
  if (found == sequences_.end()) throw Error(OMNI_NOT_FOUND, "no sequence " + std::to_string(sequence));
  return found->second;
}

void Token2Wav::admit(uint64_t id, const nlohmann::json& params) {
  if (sequences_.count(id) != 0) {
    throw Error(OMNI_FAILED_PRECONDITION, "sequence " + std::to_string(id) + " is in use");
  }
  Sequence sequence;
  sequence.settings = Settings::parse(params);
  sequence.speaker = &find_speaker(speakers_, sequence.settings.speaker);
  sequence.speech = std::make_unique<Speech>(*dit_, *bigvgan_, plan_of(sequence.settings), config_.device);
  if (sequence.settings.seed) sequence.speech->set_rng(Rng(*sequence.settings.seed));
  sequences_.emplace(id, std::move(sequence));
}

ChunkPlan Token2Wav::plan_of(const Settings& settings) const {
  if (!settings.stream) return ChunkPlan(dit_->config());
  if (!bigvgan_->divisible()) {
    throw Error(
        OMNI_INVALID_ARGUMENT,
        "mode \"stream\": this vocoder's kernels do not fit its rates, so that its sound cannot be made "
        "in pieces: use mode \"full\"");
  }
  return ChunkPlan(dit_->config(), bigvgan_->context_frames(), settings.chunks);
}

void Token2Wav::feed(uint64_t id, EngineInput input) {
  Sequence& sequence = find(id);
  if (!sequence.speech) return;  // it is over
  Speech& speech = *sequence.speech;
  if (speech.ended()) {
    throw Error(OMNI_FAILED_PRECONDITION, "sequence " + std::to_string(id) + " had its last input already");
  }
  std::optional<Rng> rng;
  for (const NamedTensor& tensor : input.tensors) {
    if (tensor.name != "rng_state") {
      throw Error(OMNI_INVALID_ARGUMENT, "unknown tensor \"" + tensor.name + "\", expected \"rng_state\"");
    }
    // A sequence with a seed of its own takes no notice of the generator, which every upstream stage hands on.
    if (!sequence.settings.rng_from_upstream) continue;
    if (speech.has_rng() || rng) {
      throw Error(OMNI_INVALID_ARGUMENT, "rng_state: the sequence has its generator already");
    }
    rng.emplace(tensor.tensor);
  }
  // Nothing can fail any more: the sequence takes all of the input or none.
  speech.append(input.tokens);
  if (rng) speech.set_rng(std::move(*rng));
  if (input.last) speech.end();
}

std::vector<SequenceResult> Token2Wav::step(const std::vector<uint64_t>& sequences) {
  for (const uint64_t id : sequences) find(id);
  std::vector<SequenceResult> results;
  for (const uint64_t id : sequences) {
    Sequence& sequence = find(id);
    SequenceResult result;
    result.sequence = id;
    try {
      if (sequence.end == OMNI_SEQUENCE_READY) advance(sequence, result);
    } catch (...) {
      omni_status* status = status_of_current_exception();
      sequence.end = OMNI_SEQUENCE_FAILED;
      sequence.code = static_cast<omni_code>(omni_status_code(status));
      sequence.message = omni_status_message(status, nullptr);
      omni_status_free(status);
      sequence.speech.reset();
    }
    if (sequence.end != OMNI_SEQUENCE_READY) {
      result.state = sequence.end;
      result.code = sequence.code;
      result.message = sequence.message;
      if (sequence.end == OMNI_SEQUENCE_DONE) result.finish_reason = OMNI_FINISH_STOP;
    }
    results.push_back(std::move(result));
  }
  return results;
}

void Token2Wav::release(uint64_t id) {
  find(id);
  sequences_.erase(id);
}

void Token2Wav::advance(Sequence& sequence, SequenceResult& result) {
  Speech& speech = *sequence.speech;
  if (speech.ready()) {
    if (!speech.has_style()) {
      const Speaker& speaker = *sequence.speaker;
      speech.set_style({schedule_of(sequence.settings), voice_of(speaker), speaker.cond.to(config_.device),
                        sequence.settings.guidance_scale});
    }
    at::Tensor audio = speech.advance();
    if (audio.defined()) result.tensors.push_back({"audio", std::move(audio)});
  }
  if (speech.done()) {
    sequence.end = OMNI_SEQUENCE_DONE;
    sequence.speech.reset();
  } else if (!speech.ready()) {
    result.state = OMNI_SEQUENCE_WAITING;
    result.tokens_wanted = speech.codes_wanted();
  }
}

const std::pair<at::Tensor, at::Tensor>& Token2Wav::voice_of(const Speaker& speaker) {
  auto found = voices_.find(speaker.name);
  if (found == voices_.end()) {
    found = voices_.emplace(speaker.name, dit_->encode_voice(speaker.ref_mel.to(config_.device))).first;
  }
  return found->second;
}

std::shared_ptr<const DitSchedule> Token2Wav::schedule_of(const Settings& settings) {
  if (!schedule_ || schedule_->num_steps != settings.num_steps ||
      schedule_->sway_coefficient != settings.sway_coefficient) {
    schedule_ = DitSchedule::make(*dit_, settings.num_steps, settings.sway_coefficient);
  }
  return schedule_;
}

}  // namespace
}  // namespace qwen2_5_omni

std::unique_ptr<Engine> open_qwen2_5_omni_token2wav(const EngineConfig& config) {
  return std::make_unique<qwen2_5_omni::Token2Wav>(config);
}

}  // namespace omni
