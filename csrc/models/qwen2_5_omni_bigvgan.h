// The vocoder of Qwen2.5-Omni's token2wav, BigVGAN: from a mel spectrogram to a waveform.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "nn/conv1d.h"
#include "runtime/config.h"
#include "runtime/weights.h"

namespace omni::qwen2_5_omni {

// bigvgan_config.
struct BigVganConfig {
  int64_t mel_dim;
  int64_t channels;  // upsample_initial_channel; every stage halves it
  std::vector<int64_t> rates;
  std::vector<int64_t> upsample_kernels;
  std::vector<int64_t> block_kernels;
  std::vector<std::vector<int64_t>> block_dilations;

  static BigVganConfig parse(const Config& bigvgan_config);
};

// Members are bound to weights when it is built, so it must not move. [torch thread]
class BigVgan {
 public:
  BigVgan(const BigVganConfig& config, const WeightPath& path);
  BigVgan(const BigVgan&) = delete;
  BigVgan& operator=(const BigVgan&) = delete;

  // Lays the weights out for the kernels. Once, when all are loaded.
  void prepare();

  // mel [mel_dim, frames], the logarithm of amplitudes -> the same in decibels, scaled to [-1, 1].
  static at::Tensor spectrum(const at::Tensor& mel);
  // spectrum [mel_dim, frames] -> [samples(frames)], in [-1, 1].
  at::Tensor synthesize(const at::Tensor& spectrum) const;
  // The samples of frames [begin, end) of that, computed from these frames and those around them. On the CPU the bits
  // are those of the whole. Only if the frames are divisible().
  at::Tensor synthesize_piece(const at::Tensor& spectrum, int64_t begin, int64_t end) const;

  // Samples that come of a number of frames.
  int64_t samples(int64_t frames) const;
  // Whether each frame makes the same number of samples, so that pieces fit together.
  bool divisible() const { return divisible_; }
  // How many frames on either side a sample depends on, at most.
  int64_t context_frames() const { return context_frames_; }
  // About how many floating-point operations it takes.
  double work(int64_t frames) const { return static_cast<double>(frames) * work_per_frame_; }

 private:
  struct Activation {
    at::Tensor frequency;  // [channels], a logarithm in the file
    at::Tensor magnitude;
    void bind(const WeightPath& path, int64_t channels);
    void prepare();
    at::Tensor forward(const at::Tensor& x, int64_t pad) const;
  };
  struct Block {
    std::string name;
    Conv1d convs1[3];
    Conv1d convs2[3];
    Activation activations[6];
    at::Tensor forward(const at::Tensor& x) const;
  };
  struct Stage {
    ConvTranspose1d up;
    std::vector<std::unique_ptr<Block>> blocks;
  };

  std::string name_;
  BigVganConfig config_;
  Conv1d conv_pre_;
  std::vector<Stage> stages_;
  Activation activation_post_;
  Conv1d conv_post_;
  int64_t context_frames_ = 0;
  bool divisible_ = true;
  double work_per_frame_ = 0;
};

}  // namespace omni::qwen2_5_omni
