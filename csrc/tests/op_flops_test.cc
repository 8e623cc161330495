// Counts of floating point operations: every formula, and networks whose work was added up by hand, by both recorders.
#include "profiler/op_flops.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "models/qwen2_5_omni_bigvgan.h"
#include "models/qwen2_5_omni_dit.h"
#include "profiler/recorder.h"
#include "profiler_files.h"
#include "tiny_omni.h"
#include "token2wav_checkpoint.h"

namespace omni {
namespace {

using nlohmann::json;
using Flops = std::map<std::string, double>;

// The last column of a table by name.
Flops flops_of(const std::string& table) {
  Flops flops;
  double unit = 0;
  std::istringstream lines(table);
  for (std::string line; std::getline(lines, line);) {
    if (const size_t at = line.find("FLOPs");
        at != std::string::npos && line.find(" Name ") != std::string::npos) {
      const size_t power = std::string(" KMGTP").find(line[at - 1]);
      unit = std::pow(1000.0, static_cast<double>(power));
      continue;
    }
    std::istringstream words(line);
    std::string name, word, last;
    words >> name;
    while (words >> word) last = word;
    if (unit > 0 && !last.empty() && std::isdigit(static_cast<unsigned char>(last[0])) != 0) {
      flops[name] += std::stod(last) * unit;
    }
  }
  return flops;
}

class FlopsTest : public testing::TestWithParam<const char*> {
 protected:
  Flops record(const std::function<void()>& run) {
    const std::string path = (folder_.path() / "t.txt").string();
    std::filesystem::remove(path);
    const auto recorder = start_recorder({{"recorder", GetParam()},
                                          {"session", "s1"},
                                          {"worker", "stage-0"},
                                          {"table_path", path},
                                          {"with_flops", true}});
    run();
    recorder->stop();
    recorder->finish();
    return flops_of(read_text(path));
  }

  c10::InferenceMode inference_;
  TemporaryFolder folder_;
};

TEST_P(FlopsTest, AStepOfTheThinker) {
  TinyOmni tiny;
  const std::unique_ptr<Engine> thinker = tiny.open("qwen2_5_omni.thinker");
  thinker->admit(
      1, {{"prompt_token_ids", {1, 2, 3, 4, 5}}, {"sampling", {{"max_tokens", 3}, {"min_tokens", 3}}}});
  thinker->step({1});
  Flops got = record([&] { thinker->step({1}); });
  // 3 layers of width 24 with 6 heads of 10 for queries and 2 for keys and values, an inner width of 37, 61 words.
  EXPECT_EQ(got["omni::linear_decode"],
            2 * (3 * (24 * (60 + 20 + 20) + 60 * 24 + 24 * (37 + 37) + 37 * 24) + 24 * 61));
  // The sixth token sees six: scores and mixing.
  EXPECT_EQ(got["omni::attention_decode"], 3 * 6 * (2 * 2 * 6 * 10));
}

TEST_P(FlopsTest, APromptOfTheThinker) {
  TinyOmni tiny;
  const std::unique_ptr<Engine> thinker = tiny.open("qwen2_5_omni.thinker");
  thinker->admit(
      1, {{"prompt_token_ids", {1, 2, 3, 4, 5}}, {"sampling", {{"max_tokens", 3}, {"min_tokens", 3}}}});
  Flops got = record([&] { thinker->step({1}); });
  // All pairs, also those that the mask hides.
  EXPECT_EQ(got["aten::_scaled_dot_product_flash_attention_for_cpu"], 3 * 6 * 5 * 5 * (2 * 2 * 10));
  EXPECT_EQ(got["aten::addmm"] + got["aten::mm"],
            2 * 5 * 3 * (24 * (60 + 20 + 20) + 60 * 24 + 24 * (37 + 37) + 37 * 24));
  EXPECT_EQ(got["aten::linear"], 0) << "would count twice";
}

TEST_P(FlopsTest, AnEvaluationOfTheDit) {
  using namespace qwen2_5_omni;
  const TempFolder folder;
  write_token2wav_checkpoint(folder, token2wav_config());
  const auto checkpoint = Checkpoint::open(folder.path());
  Weights weights(checkpoint, at::kCPU);
  Dit dit(DitConfig::parse(checkpoint->config().object("token2wav_config").object("dit_config")),
          WeightPath(&weights, "token2wav.code2wav_dit_model", at::kFloat));
  weights.check();
  while (weights.load_next()) {
  }
  dit.prepare();
  const DitCondition condition = dit.condition(at::arange(9), dit.encode_voice(at::randn({1, 5, 2})),
                                               at::randn({1, 4}), /*guided=*/true);
  const std::vector<DitModulation> modulations = dit.modulations(at::tensor({0.1F}));
  const at::Tensor x = at::randn({18, 2});
  Flops got = record([&] { dit.forward(x, condition, modulations[0]); });
  // 18 frames, twice; 3 layers of width 12, 2 heads of 10, an inner width of 24, a mel of 2.
  EXPECT_EQ(got["mkldnn::_linear_pointwise"] + got["aten::addmm"] + got["aten::mm"],
            2 * 18 * 2 * 12 + 3 * 2 * 36 * (12 * 60 + 20 * 12 + 12 * 24 + 24 * 12) + 2 * 36 * 12 * 2);
  // Blocks of 4, the last of 2. The first layer looks one block back, the second one ahead.
  const int back = 4 * 4 + 3 * (4 * 8) + 2 * 6, ahead = 3 * (4 * 8) + 4 * 6 + 2 * 2,
            own = 4 * (4 * 4) + 2 * 2;
  EXPECT_EQ(got["omni::block_attention"], 2 * 2 * (back + ahead + own) * (2 * 2 * 10));
}

TEST_P(FlopsTest, ASoundOfBigVgan) {
  using namespace qwen2_5_omni;
  const TempFolder folder;
  write_token2wav_checkpoint(folder, token2wav_config());
  const auto checkpoint = Checkpoint::open(folder.path());
  Weights weights(checkpoint, at::kCPU);
  BigVgan vocoder(
      BigVganConfig::parse(checkpoint->config().object("token2wav_config").object("bigvgan_config")),
      WeightPath(&weights, "token2wav.code2wav_bigvgan_model", at::kFloat));
  weights.check();
  while (weights.load_next()) {
  }
  vocoder.prepare();
  const at::Tensor spectrum = BigVgan::spectrum(at::zeros({2, 5}));
  Flops got = record([&] { vocoder.synthesize(spectrum); });
  // 5 frames become 15 samples of 12 channels, then 30 of 6. Each stage has a block with kernels of 3 and one with 5.
  const int blocks = 6 * (3 + 5) * (12 * 12 * 15 + 6 * 6 * 30);
  // A transposed convolution runs as its phases, with a tap more where the kernel is no multiple of the stride.
  const int up = 24 * (3 * 12) * 3 * 6 + 12 * (2 * 6) * 2 * 16;
  EXPECT_EQ(got["omni::conv1d"], 2 * (2 * 24 * 7 * 5 + up + blocks + 6 * 1 * 7 * 30));
  EXPECT_EQ(got["omni::anti_aliased_snake"], 48 * (2 * 6 * (12 * 15 + 6 * 30) + 6 * 30));
}

TEST_P(FlopsTest, ConvolutionsOfTorch) {
  Flops got = record([] {
    at::conv1d(at::ones({2, 4, 64}), at::ones({8, 2, 7}), {}, 2, 3, 1, 2);
    at::conv1d(at::ones({4, 64}), at::ones({8, 4, 1}));
    at::conv3d(at::ones({1, 2, 4, 5, 6}), at::ones({3, 2, 2, 3, 3}));
    at::conv_transpose1d(at::ones({1, 4, 10}), at::ones({4, 3, 5}), {}, 2, 1);
  });
  EXPECT_EQ(got["aten::conv1d"], 2 * (2 * 32 * 8 * 2 * 7) + 2 * (64 * 8 * 4));
  EXPECT_EQ(got["aten::conv3d"], 2 * (3 * 3 * 4) * 3 * 2 * (2 * 3 * 3));
  EXPECT_EQ(got["aten::conv_transpose1d"], 2 * 10 * 4 * 3 * 5);
}

INSTANTIATE_TEST_SUITE_P(All, FlopsTest, testing::Values("kineto", "stream"),
                         [](const auto& info) { return std::string(info.param); });

OpInput sizes(std::vector<int64_t> values) { return {true, std::move(values)}; }
OpInput numbers(std::vector<int64_t> values) { return {false, std::move(values)}; }

TEST(OpFlopsTest, InputsThatAFormulaCannotUseCountNothing) {
  const std::vector<std::vector<OpInput>> useless = {{},
                                                     {{}, {}, {}, {}},
                                                     {numbers({3}), numbers({4})},
                                                     {sizes({}), sizes({}), sizes({})},
                                                     {sizes({0, 3}), sizes({3, 0}), sizes({0, 0})}};
  for (const char* name :
       {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::conv1d", "aten::conv2d",
        "aten::conv3d", "aten::conv_transpose1d", "mkldnn::_linear_pointwise",
        "aten::_scaled_dot_product_flash_attention", "omni::linear_decode", "omni::attention_decode",
        "omni::block_attention", "omni::conv1d"}) {
    ASSERT_TRUE(counts_flops(name)) << name;
    for (const auto& inputs : useless) EXPECT_EQ(count_flops(name, inputs), 0u) << name;
  }
  EXPECT_FALSE(counts_flops("aten::softmax"));
  EXPECT_EQ(count_flops("aten::softmax", {sizes({2})}), 0u);
}

TEST(OpFlopsTest, ABiasOfTheFormOfAWeightIsNoWeight) {
  EXPECT_EQ(count_flops("mkldnn::_linear_pointwise", {sizes({3, 4}), sizes({5, 4}), sizes({4})}),
            2u * 3 * 4 * 5);
  EXPECT_EQ(count_flops("omni::linear_decode", {sizes({3, 4}), sizes({5, 4}), sizes({6, 4})}),
            2u * 3 * 4 * (5 + 6));
}

TEST(OpFlopsTest, GroupedHeadsCountLikeTheirQueries) {
  EXPECT_EQ(count_flops("aten::_scaled_dot_product_flash_attention",
                        {sizes({1, 8, 5, 16}), sizes({1, 2, 7, 16}), sizes({1, 2, 7, 32})}),
            2u * 8 * 5 * 7 * (16 + 32));
}

}  // namespace
}  // namespace omni
