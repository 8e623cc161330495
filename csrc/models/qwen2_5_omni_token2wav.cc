// Qwen2.5-Omni's token2wav as an engine: codec codes to speech at 24 kHz, always in float32.
//
// A sequence waits for all codes (and for the generator's state, if that comes from the stage before), draws its noise,
// then goes through the diffusion transformer one Runge-Kutta step per call, then through the vocoder. Sequences are
// computed one after the other, never together, so that each gets the same bits alone and among others.
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
#include "models/qwen2_5_omni_dit.h"
#include "profiler/scope.h"
#include "runtime/rng.h"
#include "runtime/speakers.h"
#include "runtime/weights.h"
#include "status.h"

namespace omni {
namespace qwen2_5_omni {
namespace {

constexpr const char* kPrefix = "token2wav";
constexpr int64_t kSampleRate = 24000;
// Control goes back to the caller after about this many floating-point operations, some tenths of a second. A step of
// Runge and Kutta that takes more is spread over four calls, one per evaluation of the network...
constexpr double kWorkPerCall = 1e11;
// ...and the vocoder makes its samples in pieces, each from its frames and those around them. Pieces are not shorter
// than this, or the frames around them would cost more than those in them.
constexpr int64_t kLeastPiece = 256;
// The times of a schedule are computed together and kept: this bounds their memory.
constexpr int64_t kMaxNumSteps = 100;
// Below this guidance the network is not run without its condition at all.
constexpr double kLeastGuidance = 1e-5;

// The params of admit.
struct Settings {
  std::string speaker;  // empty: the default one
  bool rng_from_upstream;
  std::optional<uint64_t> seed;
  int64_t num_steps;
  double guidance_scale;
  std::optional<double> sway_coefficient;

  static Settings parse(const nlohmann::json& json);
};

Settings Settings::parse(const nlohmann::json& json) {
  const Config params(&json, "token2wav request");
  params.reject_unknown(
      {"speaker", "seed", "rng_from_upstream", "num_steps", "guidance_scale", "sway_coefficient"});
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
  return s;
}

struct Sequence {
  Settings settings;
  const Speaker* speaker;
  std::optional<Rng> rng;
  std::vector<int64_t> codes;
  bool last = false;
  std::unique_ptr<DitSolver> solver;              // from the first step to the last evaluation
  at::Tensor spectrum;                            // [mel_dim, frames], after that
  int64_t frames_done = 0;                        // by the vocoder
  omni_sequence_state end = OMNI_SEQUENCE_READY;  // DONE or FAILED when it is over
  omni_code code = OMNI_OK;
  std::string message;

  bool ready() const { return last && (rng.has_value() || codes.empty()); }
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
  void advance(Sequence& sequence, SequenceResult& result);
  void start(Sequence& sequence);
  void denoise(Sequence& sequence);
  void vocode(Sequence& sequence, SequenceResult& result);
  at::Tensor checked_codes(const Sequence& sequence) const;
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
    prepared_ = true;
  }
  // The last byte counts when the weights are laid out, not before.
  total = weights_.bytes_total();
  done = prepared_ ? total : std::min(weights_.bytes_done(), total - 1);
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
  if (sequence.settings.seed) sequence.rng.emplace(*sequence.settings.seed);
  sequences_.emplace(id, std::move(sequence));
}

void Token2Wav::feed(uint64_t id, EngineInput input) {
  Sequence& sequence = find(id);
  if (sequence.last) {
    throw Error(OMNI_FAILED_PRECONDITION, "sequence " + std::to_string(id) + " had its last input already");
  }
  std::optional<Rng> rng;
  for (const NamedTensor& tensor : input.tensors) {
    if (tensor.name != "rng_state") {
      throw Error(OMNI_INVALID_ARGUMENT, "unknown tensor \"" + tensor.name + "\", expected \"rng_state\"");
    }
    // A sequence with a seed of its own takes no notice of the generator, which every upstream stage hands on.
    if (!sequence.settings.rng_from_upstream) continue;
    if (sequence.rng || rng) {
      throw Error(OMNI_INVALID_ARGUMENT, "rng_state: the sequence has its generator already");
    }
    rng.emplace(tensor.tensor);
  }
  // Nothing can fail any more: the sequence takes all of the input or none.
  sequence.codes.insert(sequence.codes.end(), input.tokens.begin(), input.tokens.end());
  if (rng) sequence.rng = std::move(rng);
  sequence.last = input.last;
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
      sequence.solver.reset();
      sequence.spectrum.reset();
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
  if (!sequence.ready()) {
    result.state = OMNI_SEQUENCE_WAITING;
  } else if (sequence.codes.empty()) {
    sequence.end = OMNI_SEQUENCE_DONE;
  } else if (sequence.spectrum.defined()) {
    vocode(sequence, result);
  } else {
    if (!sequence.solver) start(sequence);
    denoise(sequence);
  }
}

at::Tensor Token2Wav::checked_codes(const Sequence& sequence) const {
  const DitConfig& config = dit_->config();
  const std::vector<int64_t>& codes = sequence.codes;
  const int64_t frames = static_cast<int64_t>(codes.size()) * config.repeats;
  if (frames > config.max_frames) {
    throw Error(OMNI_INVALID_ARGUMENT, std::to_string(codes.size()) + " codes make " +
                                           std::to_string(frames) + " mel frames, the model takes at most " +
                                           std::to_string(config.max_frames));
  }
  for (size_t i = 0; i < codes.size(); ++i) {
    if (codes[i] < 0 || codes[i] > config.num_embeds) {
      throw Error(OMNI_INVALID_ARGUMENT, "code " + std::to_string(codes[i]) + " at position " +
                                             std::to_string(i) + " is not in the vocoder's range, 0 to " +
                                             std::to_string(config.num_embeds));
    }
  }
  return at::tensor(codes, at::kLong).to(config_.device);
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

void Token2Wav::start(Sequence& sequence) {
  const at::Tensor codes = checked_codes(sequence);
  const Speaker& speaker = *sequence.speaker;
  DitCondition condition = dit_->condition(codes, voice_of(speaker), speaker.cond.to(config_.device),
                                           sequence.settings.guidance_scale >= kLeastGuidance);
  // Drawn on the CPU and in this shape, as the reference does: the values depend on both.
  const at::Tensor noise =
      at::randn({1, codes.size(0) * dit_->config().repeats, dit_->config().ecapa.mel_dim},
                sequence.rng->generator(), at::TensorOptions().dtype(at::kFloat))[0];
  sequence.solver = std::make_unique<DitSolver>(*dit_, schedule_of(sequence.settings), std::move(condition),
                                                sequence.settings.guidance_scale, noise.to(config_.device));
}

void Token2Wav::denoise(Sequence& sequence) {
  DitSolver& solver = *sequence.solver;
  if (!solver.done()) {
    const bool whole_step = 4 * dit_->config().work(solver.state().size(0)) <= kWorkPerCall;
    do {
      solver.advance();
    } while (whole_step && !solver.at_step());
  }
  if (solver.done()) {
    sequence.spectrum = BigVgan::spectrum(solver.state().t().contiguous());
    sequence.solver.reset();
  }
}

void Token2Wav::vocode(Sequence& sequence, SequenceResult& result) {
  const int64_t frames = sequence.spectrum.size(1);
  if (bigvgan_->divisible()) {
    const auto affordable = static_cast<int64_t>(kWorkPerCall / bigvgan_->work(1));
    const int64_t end = std::min(sequence.frames_done + std::max(affordable, kLeastPiece), frames);
    result.tensors.push_back(
        {"audio", bigvgan_->synthesize_piece(sequence.spectrum, sequence.frames_done, end)});
    sequence.frames_done = end;
  } else {
    result.tensors.push_back({"audio", bigvgan_->synthesize(sequence.spectrum)});
    sequence.frames_done = frames;
  }
  if (sequence.frames_done == frames) sequence.end = OMNI_SEQUENCE_DONE;
}

}  // namespace
}  // namespace qwen2_5_omni

std::unique_ptr<Engine> open_qwen2_5_omni_token2wav(const EngineConfig& config) {
  return std::make_unique<qwen2_5_omni::Token2Wav>(config);
}

}  // namespace omni
