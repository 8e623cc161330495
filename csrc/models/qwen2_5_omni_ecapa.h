// The speaker encoder of Qwen2.5-Omni's token2wav: ECAPA-TDNN, from a reference mel spectrogram to one vector.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/config.h"
#include "runtime/weights.h"

namespace omni::qwen2_5_omni {

// The enc_* keys of dit_config.
struct EcapaConfig {
  int64_t mel_dim;
  int64_t enc_dim;                // of the result
  std::vector<int64_t> channels;  // of the first layer, the SE-Res2Net layers, and their aggregation
  std::vector<int64_t> kernel_sizes;
  std::vector<int64_t> dilations;
  int64_t attention_channels;
  int64_t res2net_scale;
  int64_t se_channels;

  static EcapaConfig parse(const Config& dit_config);
  // The fewest frames that reflection at the borders of every convolution allows.
  int64_t min_frames() const;
};

// Members are bound to weights when it is built, so it must not move. [torch thread]
class Ecapa {
 public:
  Ecapa(const EcapaConfig& config, const WeightPath& path);
  Ecapa(const Ecapa&) = delete;
  Ecapa& operator=(const Ecapa&) = delete;

  // mel [1, frames, mel_dim] -> [1, enc_dim].
  at::Tensor forward(const at::Tensor& mel) const;

 private:
  // A convolution that keeps the length by reflection at both ends.
  struct Conv {
    at::Tensor weight;  // [out, in, kernel]
    at::Tensor bias;
    int64_t dilation = 1;
    void bind(const WeightPath& path, int64_t in, int64_t out, int64_t kernel, int64_t dilation_between_taps);
    at::Tensor forward(const at::Tensor& x) const;  // [1, in, frames] -> [1, out, frames]
  };
  // Squeeze-and-excitation over Res2Net: each part of the channels sees the result of the part before.
  struct Layer {
    Conv tdnn1;
    std::vector<Conv> parts;
    Conv tdnn2;
    Conv squeeze;
    Conv excite;
    at::Tensor forward(const at::Tensor& x) const;
  };

  // Mean and standard deviation over time, with attention. [1, channels, frames] -> [1, 2 * channels, 1].
  at::Tensor pool(const at::Tensor& x) const;

  std::string name_;
  Conv first_;
  std::vector<Layer> layers_;
  Conv aggregate_;
  Conv attention_in_;
  Conv attention_out_;
  Conv last_;
};

}  // namespace omni::qwen2_5_omni
