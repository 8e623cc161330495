// One request of token2wav on its way from codec codes to sound: noise, diffusion transformer, vocoder, chunk by chunk.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "models/qwen2_5_omni_bigvgan.h"
#include "models/qwen2_5_omni_chunks.h"
#include "models/qwen2_5_omni_dit.h"
#include "runtime/normal_stream.h"

namespace omni::qwen2_5_omni {

// What a request sounds like, apart from its codes.
struct SpeechStyle {
  std::shared_ptr<const DitSchedule> schedule;
  std::pair<at::Tensor, at::Tensor> voice;  // of Dit::encode_voice
  at::Tensor speaker;                       // [1, speaker_dim]
  double guidance_scale;
};

// Holds of the past only what the next chunk needs: codes, noise and spectrum of a bounded number of frames, and the
// transformer's memories. The networks must outlive it. [torch thread]
class Speech {
 public:
  Speech(const Dit& dit, const BigVgan& bigvgan, const ChunkPlan& plan, at::Device device);
  Speech(const Speech&) = delete;
  Speech& operator=(const Speech&) = delete;

  void append(const std::vector<int64_t>& codes);
  void end() { ended_ = true; }  // no more codes
  bool ended() const { return ended_; }
  void set_rng(Rng rng) { noise_source_.emplace(std::move(rng)); }
  bool has_rng() const { return noise_source_.has_value(); }
  // Before the first advance.
  void set_style(SpeechStyle style) { style_.emplace(std::move(style)); }
  bool has_style() const { return style_.has_value(); }

  // All sound has been made.
  bool done() const;
  // There is something to compute.
  bool ready() const;
  // If it is neither: how many codes are missing for the next chunk; ChunkPlan::kNeverEnough if all must be there.
  int64_t codes_wanted() const;

  // Computes a part: some evaluations of the transformer, or some sound, which it returns: float32 [samples] or
  // undefined. Only when ready.
  at::Tensor advance();

 private:
  std::optional<Chunk> next_chunk() const;
  int64_t codes_total() const { return first_code_ + static_cast<int64_t>(codes_.size()); }
  int64_t voiceable() const;
  void start(const Chunk& chunk);
  at::Tensor codes_of(const Chunk& chunk) const;
  at::Tensor noise_of(const Chunk& chunk);
  void denoise();
  void commit();
  at::Tensor vocode();

  const Dit* dit_;
  const BigVgan* bigvgan_;
  ChunkPlan plan_;
  at::Device device_;
  std::optional<SpeechStyle> style_;
  std::optional<NormalStream> noise_source_;

  std::vector<int64_t> codes_;  // from first_code_ on
  int64_t first_code_ = 0;
  bool ended_ = false;

  std::optional<Chunk> chunk_;  // that the solver works on
  std::unique_ptr<DitSolver> solver_;
  DitMemories memories_;
  at::Tensor noise_;       // [frames, mel_dim] from frame made_ on
  int64_t made_ = 0;       // frames whose spectrum is final
  bool complete_ = false;  // there will be no more than those
  at::Tensor spectrum_;    // [mel_dim, frames], from spectrum_begin_ on
  int64_t spectrum_begin_ = 0;
  int64_t voiced_ = 0;  // frames that are sound
};

}  // namespace omni::qwen2_5_omni
