#include "models/qwen2_5_omni_ecapa.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

#include "profiler/scope.h"

namespace omni::qwen2_5_omni {
namespace {

constexpr double kVarianceFloor = 1e-12;

}  // namespace

EcapaConfig EcapaConfig::parse(const Config& config) {
  EcapaConfig c;
  c.mel_dim = config.integer("mel_dim", 80);
  c.enc_dim = config.integer("enc_dim", 128);
  c.channels = config.integers("enc_channels", {256, 256, 256, 256, 768});
  c.kernel_sizes = config.integers("enc_kernel_sizes", {5, 3, 3, 3, 1});
  c.dilations = config.integers("enc_dilations", {1, 2, 3, 4, 1});
  c.attention_channels = config.integer("enc_attention_channels", 64);
  c.res2net_scale = config.integer("enc_res2net_scale", 2);
  c.se_channels = config.integer("enc_se_channels", 64);

  if (c.channels.size() < 3 || c.kernel_sizes.size() != c.channels.size() ||
      c.dilations.size() != c.channels.size()) {
    config.fail(
        "enc_channels, enc_kernel_sizes and enc_dilations: expected equal lengths of at least 3, found " +
        std::to_string(c.channels.size()) + ", " + std::to_string(c.kernel_sizes.size()) + " and " +
        std::to_string(c.dilations.size()));
  }
  const auto positive = [](int64_t value) { return value > 0; };
  if (!std::all_of(c.channels.begin(), c.channels.end(), positive) ||
      !std::all_of(c.kernel_sizes.begin(), c.kernel_sizes.end(), positive) ||
      !std::all_of(c.dilations.begin(), c.dilations.end(), positive) || c.mel_dim <= 0 || c.enc_dim <= 0 ||
      c.attention_channels <= 0 || c.res2net_scale <= 0 || c.se_channels <= 0) {
    config.fail("mel_dim and all sizes enc_*: expected numbers > 0");
  }
  int64_t joined = 0;
  for (size_t i = 1; i + 1 < c.channels.size(); ++i) {
    if (c.channels[i] != c.channels[i - 1]) {
      config.fail("enc_channels: expected the same number for all layers but the last, found " +
                  std::to_string(c.channels[i - 1]) + " and " + std::to_string(c.channels[i]));
    }
    joined += c.channels[i];
  }
  if (c.channels.back() != joined) {
    config.fail("enc_channels: expected the last to be the sum of those between, " + std::to_string(joined) +
                ", found " + std::to_string(c.channels.back()));
  }
  if (c.channels.front() % c.res2net_scale != 0) {
    config.fail("enc_res2net_scale: expected a divisor of " + std::to_string(c.channels.front()) +
                ", found " + std::to_string(c.res2net_scale));
  }
  return c;
}

int64_t EcapaConfig::min_frames() const {
  int64_t widest = 0;  // of the paddings at one end; reflection needs one frame more
  for (size_t i = 0; i < channels.size(); ++i) {
    const int64_t both = dilations[i] * (kernel_sizes[i] - 1);
    widest = std::max(widest, both - both / 2);
  }
  return widest + 1;
}

void Ecapa::Conv::bind(const WeightPath& path, int64_t in, int64_t out, int64_t kernel,
                       int64_t dilation_between_taps) {
  path.bind(weight, "weight", {out, in, kernel});
  path.bind(bias, "bias", {out});
  dilation = dilation_between_taps;
}

at::Tensor Ecapa::Conv::forward(const at::Tensor& x) const {
  const int64_t both = dilation * (weight.size(2) - 1);
  const at::Tensor padded = both == 0 ? x : at::reflection_pad1d(x, {both / 2, both - both / 2});
  return at::conv1d(padded, weight, bias, 1, at::IntArrayRef{0}, dilation);
}

Ecapa::Ecapa(const EcapaConfig& config, const WeightPath& path) : name_("token2wav.ecapa") {
  const WeightPath blocks = path / "blocks";
  first_.bind(blocks / 0 / "conv", config.mel_dim, config.channels[0], config.kernel_sizes[0],
              config.dilations[0]);

  layers_.resize(config.channels.size() - 2);
  for (size_t i = 0; i < layers_.size(); ++i) {
    Layer& layer = layers_[i];
    const WeightPath here = blocks / static_cast<int64_t>(i + 1);
    const int64_t channels = config.channels[i + 1];
    const int64_t part = channels / config.res2net_scale;
    layer.tdnn1.bind(here / "tdnn1" / "conv", channels, channels, 1, 1);
    layer.parts.resize(config.res2net_scale - 1);
    for (size_t j = 0; j < layer.parts.size(); ++j) {
      layer.parts[j].bind(here / "res2net_block" / "blocks" / static_cast<int64_t>(j) / "conv", part, part,
                          config.kernel_sizes[i + 1], config.dilations[i + 1]);
    }
    layer.tdnn2.bind(here / "tdnn2" / "conv", channels, channels, 1, 1);
    layer.squeeze.bind(here / "se_block" / "conv1", channels, config.se_channels, 1, 1);
    layer.excite.bind(here / "se_block" / "conv2", config.se_channels, channels, 1, 1);
  }

  const int64_t joined = config.channels.back();
  aggregate_.bind(path / "mfa" / "conv", joined, joined, config.kernel_sizes.back(), config.dilations.back());
  attention_in_.bind(path / "asp" / "tdnn" / "conv", 3 * joined, config.attention_channels, 1, 1);
  attention_out_.bind(path / "asp" / "conv", config.attention_channels, joined, 1, 1);
  last_.bind(path / "fc", 2 * joined, config.enc_dim, 1, 1);
}

at::Tensor Ecapa::Layer::forward(const at::Tensor& x) const {
  const at::Tensor h = at::relu(tdnn1.forward(x));
  std::vector<at::Tensor> chunks = at::chunk(h, static_cast<int64_t>(parts.size()) + 1, 1);
  for (size_t i = 1; i < chunks.size(); ++i) {
    // The first part passes through; it is not added to the second.
    const at::Tensor in = i == 1 ? chunks[i] : chunks[i] + chunks[i - 1];
    chunks[i] = at::relu(parts[i - 1].forward(in));
  }
  const at::Tensor y = at::relu(tdnn2.forward(at::cat(chunks, 1)));
  const at::Tensor scale =
      at::sigmoid(excite.forward(at::relu(squeeze.forward(y.mean(2, /*keepdim=*/true)))));
  return y * scale + x;
}

at::Tensor Ecapa::pool(const at::Tensor& x) const {
  // weights [1, 1 or channels, frames] sum to one over time.
  const auto statistics = [&x](const at::Tensor& weights) {
    const at::Tensor mean = (weights * x).sum(2);
    const at::Tensor variance = (weights * (x - mean.unsqueeze(2)).pow(2)).sum(2);
    return std::pair(mean, variance.clamp_min(kVarianceFloor).sqrt());
  };
  const int64_t frames = x.size(2);
  const auto [mean, deviation] = statistics(at::ones({1, 1, frames}, x.options()) / frames);
  const at::Tensor context =
      at::cat({x, mean.unsqueeze(2).expand_as(x), deviation.unsqueeze(2).expand_as(x)}, 1);
  const at::Tensor scores = attention_out_.forward(at::tanh(at::relu(attention_in_.forward(context))));
  const auto [attended_mean, attended_deviation] = statistics(at::softmax(scores, 2));
  return at::cat({attended_mean, attended_deviation}, 1).unsqueeze(2);
}

at::Tensor Ecapa::forward(const at::Tensor& mel) const {
  const Scope scope(name_);
  at::Tensor h = at::relu(first_.forward(mel.transpose(1, 2)));
  std::vector<at::Tensor> outputs;
  for (const Layer& layer : layers_) {
    h = layer.forward(h);
    outputs.push_back(h);
  }
  h = at::relu(aggregate_.forward(at::cat(outputs, 1)));
  return last_.forward(pool(h)).squeeze(2);
}

}  // namespace omni::qwen2_5_omni
