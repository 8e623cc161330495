// The vocoder's configuration, and that its pieces are the whole.
#include "models/qwen2_5_omni_bigvgan.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "expect_error.h"
#include "token2wav_checkpoint.h"

namespace omni::qwen2_5_omni {
namespace {

BigVganConfig parse(const nlohmann::json& changes) {
  nlohmann::json json = token2wav_config()["bigvgan_config"];
  json.merge_patch(changes);
  return BigVganConfig::parse(Config(&json, "config.json: bigvgan_config"));
}

TEST(BigVganConfig, Defaults) {
  const nlohmann::json empty = nlohmann::json::object();
  const BigVganConfig c = BigVganConfig::parse(Config(&empty, "config.json: bigvgan_config"));
  EXPECT_EQ(c.mel_dim, 80);
  EXPECT_EQ(c.channels, 1536);
  EXPECT_EQ(c.rates, (std::vector<int64_t>{5, 3, 2, 2, 2, 2}));
  EXPECT_EQ(c.upsample_kernels, (std::vector<int64_t>{11, 7, 4, 4, 4, 4}));
  EXPECT_EQ(c.block_kernels, (std::vector<int64_t>{3, 7, 11}));
  EXPECT_EQ(c.block_dilations, (std::vector<std::vector<int64_t>>(3, {1, 3, 5})));
}

TEST(BigVganConfig, FaultsAreNamed) {
  struct Case {
    nlohmann::json changes;
    const char* message;
  };
  const std::vector<Case> cases{
      {{{"upsample_rates", {3, 2, 2}}}, "expected equal lengths, found 3 and 2"},
      {{{"upsample_rates", nlohmann::json::array()}, {"upsample_kernel_sizes", nlohmann::json::array()}},
       "expected equal lengths, found 0 and 0"},
      {{{"upsample_rates", {3, 5}}}, "expected no kernel smaller than its rate, found 4 for rate 5"},
      {{{"upsample_rates", {3, 0}}}, "expected no kernel smaller than its rate, found 4 for rate 0"},
      {{{"resblock_kernel_sizes", {3, 4}}}, "resblock_kernel_sizes: expected odd numbers > 0, found 4"},
      {{{"resblock_kernel_sizes", nlohmann::json::array()}}, "resblock_kernel_sizes: expected at least one"},
      {{{"resblock_dilation_sizes", {{1, 2, 3}}}},
       "expected 2 lists of at least 3 numbers > 0, found [[1,2,3]]"},
      {{{"resblock_dilation_sizes", {{1, 2, 3}, {1, 2}}}}, "expected 2 lists of at least 3 numbers > 0"},
      {{{"resblock_dilation_sizes", {{1, 2, 3}, {1, 0, 2}}}}, "expected 2 lists of at least 3 numbers > 0"},
      {{{"upsample_initial_channel", 3}}, "expected at least 4, which 2 stages can halve, found 3"},
      {{{"mel_dim", 0}}, "mel_dim"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.changes.dump());
    expect_error([&] { parse(c.changes); }, OMNI_INVALID_ARGUMENT,
                 {"config.json: bigvgan_config", c.message});
  }
}

// A loaded vocoder of the test configuration with changes.
struct Vocoder {
  explicit Vocoder(const nlohmann::json& changes) {
    nlohmann::json json = token2wav_config();
    json["bigvgan_config"].merge_patch(changes);
    write_token2wav_checkpoint(folder, json);
    checkpoint = Checkpoint::open(folder.path());
    weights = std::make_unique<Weights>(checkpoint, at::kCPU);
    const Config config = checkpoint->config().object("token2wav_config").object("bigvgan_config");
    network =
        std::make_unique<BigVgan>(BigVganConfig::parse(config),
                                  WeightPath(weights.get(), "token2wav.code2wav_bigvgan_model", at::kFloat));
    weights->check();
    while (weights->load_next()) {
    }
    network->prepare();
  }

  TempFolder folder;
  std::shared_ptr<const Checkpoint> checkpoint;
  std::unique_ptr<Weights> weights;
  std::unique_ptr<BigVgan> network;
};

TEST(BigVgan, PiecesAreTheWholeBitForBit) {
  const c10::InferenceMode inference;
  at::manual_seed(1);
  const std::vector<nlohmann::json> changes{
      nlohmann::json::object(),
      {{"upsample_rates", {2, 4}},
       {"upsample_kernel_sizes", {8, 4}},
       {"resblock_kernel_sizes", {11}},
       {"resblock_dilation_sizes", {{1, 3, 5}}}},
      {{"upsample_rates", {1, 1, 1}}, {"upsample_kernel_sizes", {3, 1, 5}}},
  };
  for (const nlohmann::json& change : changes) {
    SCOPED_TRACE(change.dump());
    const Vocoder vocoder(change);
    const BigVgan& network = *vocoder.network;
    ASSERT_TRUE(network.divisible());
    const int64_t frames = 2 * network.context_frames() + 40;
    const at::Tensor spectrum = BigVgan::spectrum(at::randn({2, frames}) * 2 - 4);
    const at::Tensor whole = network.synthesize(spectrum);
    EXPECT_EQ(whole.numel(), network.samples(frames));
    EXPECT_GT(whole.abs().max().item<float>(), 0.0F);
    for (const int64_t piece : {int64_t{1}, int64_t{7}, int64_t{33}, frames}) {
      std::vector<at::Tensor> parts;
      for (int64_t begin = 0; begin < frames; begin += piece) {
        parts.push_back(network.synthesize_piece(spectrum, begin, std::min(begin + piece, frames)));
      }
      EXPECT_TRUE(at::equal(at::cat(parts), whole)) << "pieces of " << piece;
    }
  }
}

TEST(BigVgan, SamplesOfKernelsThatDoNotFitTheirRate) {
  const c10::InferenceMode inference;
  const nlohmann::json changes = {{"upsample_kernel_sizes", {8, 5}}};  // 8 - 3 and 5 - 2 are odd
  const Vocoder vocoder(changes);
  EXPECT_FALSE(vocoder.network->divisible());
  for (const int64_t frames : {1, 2, 9}) {
    EXPECT_EQ(vocoder.network->samples(frames), 2 * (3 * frames + 1) + 1);
    EXPECT_EQ(vocoder.network->synthesize(at::zeros({2, frames})).numel(), vocoder.network->samples(frames));
  }
}

TEST(BigVgan, SpectrumIsDecibelsBetweenItsLimits) {
  // exp(0) is 0 dB, 20 dB below which lies what 115 dB of range count from.
  const at::Tensor mel = at::tensor({0.0F, -100.0F, 100.0F, 2.3025851F}).view({1, 4});
  const at::Tensor expected = at::tensor({2 * 95.0F / 115 - 1, -1.0F, 1.0F, 1.0F}).view({1, 4});
  EXPECT_TRUE(at::allclose(BigVgan::spectrum(mel), expected, 1e-6, 1e-6));
}

}  // namespace
}  // namespace omni::qwen2_5_omni
