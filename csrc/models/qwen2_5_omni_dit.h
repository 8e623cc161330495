// The diffusion transformer of Qwen2.5-Omni's token2wav: from codec codes and a speaker to a mel spectrogram.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "models/qwen2_5_omni_ecapa.h"
#include "nn/block_attention.h"
#include "nn/dense.h"
#include "runtime/config.h"
#include "runtime/weights.h"

namespace omni::qwen2_5_omni {

// dit_config.
struct DitConfig {
  EcapaConfig ecapa;
  int64_t hidden_size;
  int64_t layers;
  int64_t heads;
  int64_t head_dim;
  int64_t ff_size;
  int64_t code_dim;     // emb_dim
  int64_t speaker_dim;  // enc_emb_dim
  int64_t num_embeds;   // the largest code
  int64_t repeats;      // frames per code
  int64_t max_frames;
  double rope_theta;
  std::vector<BlockWindow> windows;  // of each layer

  static DitConfig parse(const Config& dit_config);
  // About how many floating-point operations one guided evaluation takes.
  double work(int64_t frames) const;
  // Frames of a block.
  int64_t block() const { return windows.front().size; }
  // Of how many blocks before and after its own a frame is a function, in one evaluation.
  int64_t reach_back() const;
  int64_t reach_ahead() const;
};

// Which frames of a request a run of the network is about.
struct DitSpan {
  int64_t first = 0;   // a multiple of the block
  int64_t rows = -1;   // -1: all that the codes make
  int64_t before = 0;  // frames before the first that a memory may hold
};

// The part of the network's input that stays the same over all evaluations of one span.
struct DitCondition {
  at::Tensor rows;     // [2 or 1, frames, hidden]: projected code and speaker; then the same without either
  at::Tensor cosines;  // [before + frames, head_dim / 2]
  at::Tensor sines;
  int64_t before = 0;
  bool guided() const { return rows.size(0) == 2; }
};

// What the span that follows will look back at, in one evaluation: by layer, keys and values [batch, rows, 2, heads,
// head_dim] of the last rows before it. Undefined for layers that do not look back, and before the first frame.
struct DitMemory {
  std::vector<at::Tensor> layers;
  // Rows of this evaluation, from its first on, that come before the span that follows.
  int64_t keep = 0;
};

// What the time decides, the same for all requests. Scales contain the 1 that is added to them. Each tensor: [hidden].
struct DitModulation {
  struct Layer {
    at::Tensor shift, scale, gate;           // of the attention
    at::Tensor ff_shift, ff_scale, ff_gate;  // of the feed-forward part
  };
  std::vector<Layer> layers;
  at::Tensor last_scale, last_shift;
};

// Members are bound to weights when it is built, so it must not move. [torch thread]
class Dit {
 public:
  Dit(const DitConfig& config, const WeightPath& path);
  Dit(const Dit&) = delete;
  Dit& operator=(const Dit&) = delete;

  // Joins weights that are used together. Once, when all are loaded.
  void prepare();

  const DitConfig& config() const { return config_; }

  // What the reference mel says of a voice: two vectors [1, enc_dim], the second for no mel at all (zeros).
  std::pair<at::Tensor, at::Tensor> encode_voice(const at::Tensor& ref_mel) const;

  // codes: int64 [codes], all in [0, num_embeds], from the span's first frame on. speaker: [1, speaker_dim]. guided: also
  // without code and speaker.
  DitCondition condition(const at::Tensor& codes, const std::pair<at::Tensor, at::Tensor>& voice,
                         const at::Tensor& speaker, bool guided, const DitSpan& span = {}) const;

  // points: float32 [times]. One entry for each.
  std::vector<DitModulation> modulations(const at::Tensor& points) const;

  // The velocity at x [frames, mel_dim] and the modulation's time: [2 or 1, frames, mel_dim], the second one without
  // condition. With a memory of the frames before x they are seen as if they were part of it; it is replaced by what
  // the next span needs.
  at::Tensor forward(const at::Tensor& x, const DitCondition& condition, const DitModulation& modulation,
                     DitMemory* memory = nullptr) const;

 private:
  struct Layer {
    std::string name;
    BlockWindow window;
    DenseLayer modulation;
    DenseLayer q, k, v;  // joined into qkv and dropped by prepare()
    DenseLayer qkv;
    DenseLayer out;
    DenseLayer ff_in;
    DenseLayer ff_out;
  };

  at::Tensor attention(size_t index, const at::Tensor& x, const DitCondition& condition,
                       DitMemory* memory) const;

  DitConfig config_;
  std::string name_;
  Ecapa ecapa_;
  DenseLayer time_in_;
  DenseLayer time_out_;
  at::Tensor codes_;      // [num_embeds + 1, code_dim]
  DenseLayer input_;      // columns: mel, voice, code, speaker
  at::Tensor input_mel_;  // its columns, contiguous, from prepare()
  at::Tensor input_voice_;
  at::Tensor input_code_;
  at::Tensor input_speaker_;
  std::vector<Layer> layers_;
  DenseLayer last_modulation_;
  DenseLayer output_;
};

// The path of one request from noise to its mel spectrogram: an ordinary differential equation, solved by the 3/8 rule
// of Runge and Kutta. One instance for all requests of the same settings.
struct DitSchedule {
  int64_t num_steps;                       // points in time, one more than steps
  std::optional<double> sway_coefficient;  // bends the points towards the beginning (-1) or the end

  at::Tensor points;                       // float32 [num_steps]
  std::vector<DitModulation> modulations;  // at 3 * step + {0, 1, 2, 3}: the step's start, thirds and end

  static std::shared_ptr<const DitSchedule> make(const Dit& dit, int64_t num_steps,
                                                 std::optional<double> sway_coefficient);
  int64_t steps() const { return num_steps - 1; }
};

// The points in time alone, float32 [num_steps].
at::Tensor schedule_points(int64_t num_steps, std::optional<double> sway_coefficient);

// What the solver of one span leaves to that of the next: a memory for each evaluation.
using DitMemories = std::vector<DitMemory>;

// One span of a request on its way.
class DitSolver {
 public:
  // memories, if there are any, must outlive the solver: 4 * steps, or none yet, before the first span. Of the noise's
  // rows, `keep` come before the next span.
  DitSolver(const Dit& dit, std::shared_ptr<const DitSchedule> schedule, DitCondition condition,
            double guidance_scale, at::Tensor noise, DitMemories* memories = nullptr, int64_t keep = 0);

  // One evaluation of the network, of four per step. Not when done.
  void advance();
  bool done() const { return step_ == schedule_->steps(); }
  // True between two steps.
  bool at_step() const { return slopes_.empty(); }
  // [frames, mel_dim]
  const at::Tensor& state() const { return state_; }

 private:
  const Dit* dit_;
  std::shared_ptr<const DitSchedule> schedule_;
  DitCondition condition_;
  double guidance_scale_;
  DitMemories* memories_;
  at::Tensor state_;
  std::vector<at::Tensor> slopes_;  // of the current step, up to three
  int64_t step_ = 0;
};

}  // namespace omni::qwen2_5_omni
