#include "models/qwen2_5_omni_bigvgan.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "nn/snake.h"
#include "profiler/scope.h"

namespace omni::qwen2_5_omni {
namespace {

constexpr int64_t kEndKernel = 7;  // of the first and the last convolution
constexpr double kNoDivisionByZero = 1e-9;
constexpr double kLowestDecibel = -115;
// Samples on either side that an anti-aliased activation looks at: three at its own rate for each of its filters.
constexpr int64_t kActivationReach = 6;

std::vector<std::vector<int64_t>> dilations_of(const Config& config, size_t blocks) {
  if (!config.has("resblock_dilation_sizes")) return std::vector<std::vector<int64_t>>(blocks, {1, 3, 5});
  const nlohmann::json& lists = config.json().at("resblock_dilation_sizes");
  std::vector<std::vector<int64_t>> result;
  const auto good = [](const nlohmann::json& list) {
    return list.is_array() && list.size() >= 3 &&
           std::all_of(list.begin(), list.end(),
                       [](const nlohmann::json& d) { return d.is_number_integer() && d.get<int64_t>() > 0; });
  };
  if (!lists.is_array() || lists.size() != blocks || !std::all_of(lists.begin(), lists.end(), good)) {
    config.fail("resblock_dilation_sizes: expected " + std::to_string(blocks) +
                " lists of at least 3 numbers > 0, found " + lists.dump());
  }
  for (const nlohmann::json& list : lists) result.push_back(list.get<std::vector<int64_t>>());
  return result;
}

}  // namespace

BigVganConfig BigVganConfig::parse(const Config& config) {
  BigVganConfig c;
  c.mel_dim = config.has("mel_dim") ? config.positive("mel_dim") : 80;
  c.channels = config.has("upsample_initial_channel") ? config.positive("upsample_initial_channel") : 1536;
  c.rates = config.integers("upsample_rates", {5, 3, 2, 2, 2, 2});
  c.upsample_kernels = config.integers("upsample_kernel_sizes", {11, 7, 4, 4, 4, 4});
  c.block_kernels = config.integers("resblock_kernel_sizes", {3, 7, 11});
  if (c.rates.empty() || c.rates.size() != c.upsample_kernels.size()) {
    config.fail("upsample_rates and upsample_kernel_sizes: expected equal lengths, found " +
                std::to_string(c.rates.size()) + " and " + std::to_string(c.upsample_kernels.size()));
  }
  for (size_t i = 0; i < c.rates.size(); ++i) {
    if (c.rates[i] <= 0 || c.upsample_kernels[i] < c.rates[i]) {
      config.fail("upsample_kernel_sizes: expected no kernel smaller than its rate, found " +
                  std::to_string(c.upsample_kernels[i]) + " for rate " + std::to_string(c.rates[i]));
    }
  }
  for (const int64_t kernel : c.block_kernels) {
    if (kernel <= 0 || kernel % 2 == 0) {
      config.fail("resblock_kernel_sizes: expected odd numbers > 0, found " + std::to_string(kernel));
    }
  }
  if (c.block_kernels.empty()) config.fail("resblock_kernel_sizes: expected at least one");
  if (c.channels >> c.rates.size() == 0) {
    config.fail("upsample_initial_channel: expected at least " +
                std::to_string(int64_t{1} << c.rates.size()) + ", which " + std::to_string(c.rates.size()) +
                " stages can halve, found " + std::to_string(c.channels));
  }
  c.block_dilations = dilations_of(config, c.block_kernels.size());
  return c;
}

void BigVgan::Activation::bind(const WeightPath& path, int64_t channels) {
  path.bind(frequency, "alpha", {channels});
  path.bind(magnitude, "beta", {channels});
}

void BigVgan::Activation::prepare() {
  frequency = frequency.exp();
  magnitude = (magnitude.exp() + kNoDivisionByZero).reciprocal();
}

at::Tensor BigVgan::Activation::forward(const at::Tensor& x, int64_t pad) const {
  return anti_aliased_snake(x, frequency, magnitude, pad);
}

BigVgan::BigVgan(const BigVganConfig& config, const WeightPath& path)
    : name_("token2wav.bigvgan"), config_(config) {
  conv_pre_.bind(path / "conv_pre", config.mel_dim, config.channels, kEndKernel, 1, /*has_bias=*/true);
  stages_.resize(config.rates.size());
  // What a sample depends on, in frames: summed as a fraction, since later stages count finer.
  double context = kEndKernel / 2;
  double rate = 1;
  int64_t index = 0;
  for (size_t i = 0; i < stages_.size(); ++i) {
    Stage& stage = stages_[i];
    const int64_t channels = config.channels >> (i + 1);
    stage.up.bind(path / "ups" / static_cast<int64_t>(i) / 0, config.channels >> i, channels,
                  config.upsample_kernels[i], config.rates[i]);
    context += static_cast<double>(config.upsample_kernels[i]) / static_cast<double>(config.rates[i]) / rate;
    rate *= static_cast<double>(config.rates[i]);
    divisible_ = divisible_ && (config.upsample_kernels[i] - config.rates[i]) % 2 == 0;
    int64_t widest = 0;
    for (size_t j = 0; j < config.block_kernels.size(); ++j, ++index) {
      auto block = std::make_unique<Block>();
      const WeightPath here = path / "resblocks" / index;
      block->name = name_ + ".resblock." + std::to_string(index);
      int64_t reach = 0;
      for (int64_t k = 0; k < 3; ++k) {
        const int64_t kernel = config.block_kernels[j];
        block->convs1[k].bind(here / "convs1" / k, channels, channels, kernel, config.block_dilations[j][k],
                              true);
        block->convs2[k].bind(here / "convs2" / k, channels, channels, kernel, 1, true);
        reach += block->convs1[k].same_pad() + block->convs2[k].same_pad() + 2 * kActivationReach;
      }
      for (int64_t k = 0; k < 6; ++k) block->activations[k].bind(here / "activations" / k / "act", channels);
      widest = std::max(widest, reach);
      stage.blocks.push_back(std::move(block));
    }
    context += static_cast<double>(widest) / rate;
    int64_t taps = 0;
    for (const int64_t kernel : config.block_kernels) taps += 6 * kernel;
    work_per_frame_ += 2 * rate * static_cast<double>(channels * channels * taps);
  }
  const int64_t last = config.channels >> stages_.size();
  activation_post_.bind(path / "activation_post" / "act", last);
  conv_post_.bind(path / "conv_post", last, 1, kEndKernel, 1, /*has_bias=*/false);
  context += (kActivationReach + kEndKernel / 2) / rate;
  context_frames_ = static_cast<int64_t>(std::ceil(context)) + 1;
}

void BigVgan::prepare() {
  conv_pre_.prepare();
  for (Stage& stage : stages_) {
    stage.up.prepare();
    for (const std::unique_ptr<Block>& block : stage.blocks) {
      for (Conv1d& conv : block->convs1) conv.prepare();
      for (Conv1d& conv : block->convs2) conv.prepare();
      for (Activation& activation : block->activations) activation.prepare();
    }
  }
  activation_post_.prepare();
  conv_post_.prepare();
}

int64_t BigVgan::samples(int64_t frames) const {
  int64_t length = frames;
  for (const Stage& stage : stages_) length = stage.up.out_length(length);
  return length;
}

at::Tensor BigVgan::Block::forward(const at::Tensor& x) const {
  const Scope scope(name);
  at::Tensor h = x.clone();
  for (int k = 0; k < 3; ++k) {
    const at::Tensor inner = convs1[k].forward(activations[2 * k].forward(h, convs1[k].same_pad()));
    convs2[k].add_to(h, activations[2 * k + 1].forward(inner, convs2[k].same_pad()));
  }
  return h;
}

at::Tensor BigVgan::spectrum(const at::Tensor& mel) {
  const double quietest = std::exp(kLowestDecibel / 20 * std::log(10.0));
  const at::Tensor decibels = 20 * at::log10(at::clamp_min(mel.exp(), quietest)) - 20;
  return at::clamp(2 * ((decibels - kLowestDecibel) / -kLowestDecibel) - 1, -1, 1);
}

at::Tensor BigVgan::synthesize(const at::Tensor& spectrum) const {
  const Scope scope(name_);
  at::Tensor h = conv_pre_.forward(at::constant_pad_nd(spectrum, {kEndKernel / 2, kEndKernel / 2}));
  for (const Stage& stage : stages_) {
    h = stage.up.forward(h);
    at::Tensor sum = stage.blocks[0]->forward(h);
    for (size_t j = 1; j < stage.blocks.size(); ++j) sum.add_(stage.blocks[j]->forward(h));
    h = sum.div_(static_cast<double>(stage.blocks.size()));
  }
  h = conv_post_.forward(activation_post_.forward(h, kEndKernel / 2));
  return h.clamp_(-1, 1).view({-1});
}

at::Tensor BigVgan::synthesize_piece(const at::Tensor& spectrum, int64_t begin, int64_t end) const {
  const int64_t first = std::max<int64_t>(begin - context_frames_, 0);
  const int64_t last = std::min(end + context_frames_, spectrum.size(1));
  return synthesize(spectrum.narrow(1, first, last - first))
      .narrow(0, samples(begin - first), samples(end - begin));
}

}  // namespace omni::qwen2_5_omni
