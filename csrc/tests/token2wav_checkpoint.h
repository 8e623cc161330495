// A small token2wav checkpoint with random weights, for tests: every tensor of the network by name and shape.
#pragma once

#include <ATen/ATen.h>

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "temp_checkpoint.h"

namespace omni {

// token2wav_config of a network whose sizes all differ. Its speakers are those of testdata/two_speakers.pt.
inline nlohmann::json token2wav_config() {
  return nlohmann::json::parse(R"({
    "dit_config": {
      "hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 2, "head_dim": 10, "ff_mult": 2,
      "emb_dim": 5, "num_embeds": 20, "mel_dim": 2, "repeats": 2, "block_size": 4, "max_position_embeddings": 400,
      "look_ahead_layers": [1], "look_backward_layers": [0], "rope_parameters": {"rope_type": "default", "rope_theta": 50},
      "enc_emb_dim": 4, "enc_dim": 3, "enc_channels": [4, 4, 4, 8], "enc_kernel_sizes": [3, 3, 1, 1],
      "enc_dilations": [1, 2, 1, 1], "enc_attention_channels": 3, "enc_res2net_scale": 2, "enc_se_channels": 2},
    "bigvgan_config": {
      "mel_dim": 2, "upsample_initial_channel": 24, "upsample_rates": [3, 2], "upsample_kernel_sizes": [7, 4],
      "resblock_kernel_sizes": [3, 5], "resblock_dilation_sizes": [[1, 2, 3], [2, 1, 1]]}
  })");
}

// Collects tensors with values of about 1 / sqrt(inputs), the same in every run.
class RandomTensors {
 public:
  void add(const std::string& name, const std::vector<int64_t>& shape) {
    int64_t inputs = 1;
    for (size_t i = 1; i < shape.size(); ++i) inputs *= shape[i];
    const double deviation = shape.size() == 1 ? 0.2 : 1 / std::sqrt(static_cast<double>(inputs));
    const at::Tensor values = at::randn(shape, generator_) * deviation;
    const auto* data = reinterpret_cast<const char*>(values.const_data_ptr<float>());
    tensors_.push_back({name, "F32", shape, std::string(data, values.nbytes())});
  }
  void add_layer(const std::string& name, const std::vector<int64_t>& weight_shape, int64_t bias) {
    add(name + ".weight", weight_shape);
    if (bias > 0) add(name + ".bias", {bias});
  }
  const std::vector<FileTensor>& tensors() const { return tensors_; }

 private:
  at::Generator generator_ = at::make_generator<at::CPUGeneratorImpl>(7);
  std::vector<FileTensor> tensors_;
};

inline void add_ecapa(RandomTensors& tensors, const nlohmann::json& c) {
  const std::string path = "token2wav.code2wav_dit_model.input_embed.spk_encoder.";
  const auto conv = [&](const std::string& name, int64_t in, int64_t out, int64_t kernel) {
    tensors.add_layer(path + name, {out, in, kernel}, out);
  };
  const std::vector<int64_t> channels = c["enc_channels"];
  const std::vector<int64_t> kernels = c["enc_kernel_sizes"];
  const int64_t scale = c["enc_res2net_scale"];
  const int64_t squeezed = c["enc_se_channels"];
  const int64_t attention = c["enc_attention_channels"];
  const int64_t joined = channels.back();
  conv("blocks.0.conv", c["mel_dim"], channels[0], kernels[0]);
  for (size_t i = 1; i + 1 < channels.size(); ++i) {
    const std::string block = "blocks." + std::to_string(i) + ".";
    conv(block + "tdnn1.conv", channels[i], channels[i], 1);
    for (int64_t j = 0; j + 1 < scale; ++j) {
      conv(block + "res2net_block.blocks." + std::to_string(j) + ".conv", channels[i] / scale,
           channels[i] / scale, kernels[i]);
    }
    conv(block + "tdnn2.conv", channels[i], channels[i], 1);
    conv(block + "se_block.conv1", channels[i], squeezed, 1);
    conv(block + "se_block.conv2", squeezed, channels[i], 1);
  }
  conv("mfa.conv", joined, joined, kernels.back());
  conv("asp.tdnn.conv", 3 * joined, attention, 1);
  conv("asp.conv", attention, joined, 1);
  conv("fc", 2 * joined, c["enc_dim"], 1);
}

inline void add_dit(RandomTensors& tensors, const nlohmann::json& c) {
  const std::string path = "token2wav.code2wav_dit_model.";
  const auto linear = [&](const std::string& name, int64_t in, int64_t out) {
    tensors.add_layer(path + name, {out, in}, out);
  };
  const int64_t hidden = c["hidden_size"];
  const int64_t inner = c["num_attention_heads"].get<int64_t>() * c["head_dim"].get<int64_t>();
  const int64_t ff = hidden * c["ff_mult"].get<int64_t>();
  const int64_t mel = c["mel_dim"];
  const int64_t codes = c["emb_dim"];
  linear("time_embed.time_mlp.0", 256, hidden);
  linear("time_embed.time_mlp.2", hidden, hidden);
  tensors.add_layer(path + "text_embed.codec_embed", {c["num_embeds"].get<int64_t>() + 1, codes}, 0);
  linear("input_embed.proj", mel + c["enc_dim"].get<int64_t>() + codes + c["enc_emb_dim"].get<int64_t>(),
         hidden);
  add_ecapa(tensors, c);
  for (int64_t i = 0; i < c["num_hidden_layers"]; ++i) {
    const std::string block = "transformer_blocks." + std::to_string(i) + ".";
    linear(block + "attn_norm.linear", hidden, 6 * hidden);
    for (const char* name : {"attn.to_q", "attn.to_k", "attn.to_v"}) linear(block + name, hidden, inner);
    linear(block + "attn.to_out.0", inner, hidden);
    linear(block + "ff.ff.0", hidden, ff);
    linear(block + "ff.ff.3", ff, hidden);
  }
  linear("norm_out.linear", hidden, 2 * hidden);
  linear("proj_out", hidden, mel);
}

inline void add_bigvgan(RandomTensors& tensors, const nlohmann::json& c) {
  const std::string path = "token2wav.code2wav_bigvgan_model.";
  const std::vector<int64_t> rates = c["upsample_rates"];
  const std::vector<int64_t> up_kernels = c["upsample_kernel_sizes"];
  const std::vector<int64_t> kernels = c["resblock_kernel_sizes"];
  const auto activation = [&](const std::string& name, int64_t channels) {
    tensors.add(path + name + ".act.alpha", {channels});
    tensors.add(path + name + ".act.beta", {channels});
  };
  int64_t channels = c["upsample_initial_channel"];
  tensors.add_layer(path + "conv_pre", {channels, c["mel_dim"], 7}, channels);
  for (size_t i = 0; i < rates.size(); ++i) {
    const int64_t half = channels / 2;
    tensors.add_layer(path + "ups." + std::to_string(i) + ".0", {channels, half, up_kernels[i]}, half);
    for (size_t j = 0; j < kernels.size(); ++j) {
      const std::string block = "resblocks." + std::to_string(i * kernels.size() + j) + ".";
      for (int k = 0; k < 3; ++k) {
        for (const char* convs : {"convs1.", "convs2."}) {
          tensors.add_layer(path + block + convs + std::to_string(k), {half, half, kernels[j]}, half);
        }
      }
      for (int k = 0; k < 6; ++k) activation(block + "activations." + std::to_string(k), half);
    }
    channels = half;
  }
  activation("activation_post", channels);
  tensors.add_layer(path + "conv_post", {1, channels, 7}, 0);
}

// Writes config.json, model.safetensors and spk_dict.pt of a network of this token2wav_config.
inline void write_token2wav_checkpoint(const TempFolder& folder, const nlohmann::json& config) {
  RandomTensors tensors;
  add_dit(tensors, config["dit_config"]);
  add_bigvgan(tensors, config["bigvgan_config"]);
  folder.write("config.json", nlohmann::json({{"token2wav_config", config}}).dump());
  folder.write("model.safetensors", safetensors_file(tensors.tensors()));
  std::filesystem::copy_file(OMNI_SOURCE_DIR "/csrc/tests/testdata/two_speakers.pt",
                             folder.path() + "/spk_dict.pt");
}

}  // namespace omni
