// The diffusion transformer's configuration, schedule and solver. Its numbers against the reference's are shown by
// goldens.
#include "models/qwen2_5_omni_dit.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "expect_error.h"
#include "token2wav_checkpoint.h"

namespace omni::qwen2_5_omni {
namespace {

DitConfig parse(const nlohmann::json& changes) {
  nlohmann::json json = token2wav_config()["dit_config"];
  json.merge_patch(changes);
  return DitConfig::parse(Config(&json, "config.json: dit_config"));
}

TEST(DitConfig, ReadsEverySize) {
  const DitConfig c = parse({{"look_ahead_layers", {0, 2}}, {"look_backward_layers", {1, 2}}});
  EXPECT_EQ(c.hidden_size, 12);
  EXPECT_EQ(c.layers, 3);
  EXPECT_EQ(c.heads, 2);
  EXPECT_EQ(c.head_dim, 10);
  EXPECT_EQ(c.ff_size, 24);
  EXPECT_EQ(c.num_embeds, 20);
  EXPECT_EQ(c.max_frames, 400);
  EXPECT_EQ(c.rope_theta, 50);
  EXPECT_EQ(c.ecapa.min_frames(), 3);
  ASSERT_EQ(c.windows.size(), 3U);
  const std::vector<std::pair<int64_t, int64_t>> expected{{0, 1}, {1, 0}, {1, 1}};  // back, ahead
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(c.windows[i].size, 4);
    EXPECT_EQ(std::pair(c.windows[i].back, c.windows[i].ahead), expected[i]) << "layer " << i;
  }
}

// What a file does not say is what the reference's classes say.
TEST(DitConfig, Defaults) {
  const nlohmann::json empty = nlohmann::json::object();
  const DitConfig c = DitConfig::parse(Config(&empty, "config.json: dit_config"));
  EXPECT_EQ(c.hidden_size, 1024);
  EXPECT_EQ(c.layers, 22);
  EXPECT_EQ(c.heads, 16);
  EXPECT_EQ(c.head_dim, 64);
  EXPECT_EQ(c.ff_size, 2048);
  EXPECT_EQ(c.code_dim, 512);
  EXPECT_EQ(c.speaker_dim, 192);
  EXPECT_EQ(c.num_embeds, 8193);
  EXPECT_EQ(c.max_frames, 32768);
  EXPECT_EQ(c.rope_theta, 10000);
  EXPECT_EQ(c.windows[10].ahead, 1);
  EXPECT_EQ(c.windows[0].back, 1);
  EXPECT_EQ(c.windows[20].back, 1);
  EXPECT_EQ(c.windows[11].size, 24);
  EXPECT_EQ(c.ecapa.channels, (std::vector<int64_t>{256, 256, 256, 256, 768}));
}

TEST(DitConfig, RopeInBothSpellings) {
  EXPECT_EQ(parse({{"rope_parameters", nullptr}, {"rope_theta", 77}}).rope_theta, 77);
  EXPECT_EQ(parse({{"rope_parameters", {{"rope_theta", 88}}}}).rope_theta, 88);
  expect_error([] { parse({{"rope_parameters", {{"rope_type", "yarn"}}}}); }, OMNI_INVALID_ARGUMENT,
               {"config.json: dit_config", "rope_type: expected \"default\", found \"yarn\""});
}

TEST(DitConfig, FaultsAreNamed) {
  struct Case {
    nlohmann::json changes;
    const char* message;
  };
  const std::vector<Case> cases{
      {{{"hidden_size", 0}}, "hidden_size"},
      {{{"head_dim", 7}}, "head_dim: expected an even number, found 7"},
      {{{"block_size", -1}}, "block_size"},
      {{{"look_ahead_layers", "all"}}, "look_ahead_layers"},
      {{{"rope_parameters", {{"rope_theta", 0}}}}, "rope_theta: expected a number > 0"},
      {{{"enc_channels", {4, 4}}}, "expected equal lengths of at least 3, found 2, 4 and 4"},
      {{{"enc_channels", {4, 4, 6, 10}}},
       "expected the same number for all layers but the last, found 4 and 6"},
      {{{"enc_channels", {4, 4, 4, 9}}}, "expected the last to be the sum of those between, 8, found 9"},
      {{{"enc_res2net_scale", 3}}, "enc_res2net_scale: expected a divisor of 4, found 3"},
      {{{"enc_dilations", {1, 0, 1, 1}}}, "expected numbers > 0"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.changes.dump());
    expect_error([&] { parse(c.changes); }, OMNI_INVALID_ARGUMENT, {"config.json: dit_config", c.message});
  }
}

TEST(Schedule, PointsAreTheReferences) {
  struct Case {
    int64_t num_steps;
    std::optional<double> sway;
    std::vector<float> points;
  };
  // torch.linspace and the sway of the reference, float32.
  const std::vector<Case> cases{
      {1, -1.0, {0}},
      {2, -1.0, {0, 1}},
      {5, std::nullopt, {0, 0.25F, 0.5F, 0.75F, 1}},
      {5, 0.5, {0, 0.336939752F, 0.603553414F, 0.816341698F, 1}},
      {10,
       -1.0,
       {0, 0.0151922703F, 0.0603073835F, 0.133974612F, 0.233955562F, 0.357212424F, 0.5F, 0.657979965F,
        0.826351881F, 1}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.num_steps);
    EXPECT_TRUE(at::equal(schedule_points(c.num_steps, c.sway), at::tensor(c.points)));
  }
}

class DitNetwork : public ::testing::Test {
 protected:
  DitNetwork() {
    write_token2wav_checkpoint(folder_, token2wav_config());
    checkpoint_ = Checkpoint::open(folder_.path());
    weights_ = std::make_unique<Weights>(checkpoint_, at::kCPU);
    const Config config = checkpoint_->config().object("token2wav_config").object("dit_config");
    dit_ = std::make_unique<Dit>(DitConfig::parse(config),
                                 WeightPath(weights_.get(), "token2wav.code2wav_dit_model", at::kFloat));
    weights_->check();
    while (weights_->load_next()) {
    }
    dit_->prepare();
  }

  DitCondition condition(int64_t codes, bool guided) {
    return dit_->condition(at::arange(codes).remainder(21), dit_->encode_voice(at::randn({1, 5, 2})),
                           at::randn({1, 4}), guided);
  }

  c10::InferenceMode inference_;
  TempFolder folder_;
  std::shared_ptr<const Checkpoint> checkpoint_;
  std::unique_ptr<Weights> weights_;
  std::unique_ptr<Dit> dit_;
};

// The unguided run is the first half of the guided one.
TEST_F(DitNetwork, HalvesAreIndependent) {
  at::manual_seed(1);
  const DitCondition both = condition(9, true);
  DitCondition one = both;
  one.rows = both.rows.narrow(0, 0, 1);
  const at::Tensor x = at::randn({18, 2});
  const std::vector<DitModulation> modulations = dit_->modulations(at::tensor({0.1F, 0.7F}));
  for (const DitModulation& modulation : modulations) {
    const at::Tensor guided = dit_->forward(x, both, modulation);
    const at::Tensor alone = dit_->forward(x, one, modulation);
    EXPECT_EQ(guided.sizes(), at::IntArrayRef({2, 18, 2}));
    EXPECT_EQ(alone.sizes(), at::IntArrayRef({1, 18, 2}));
    EXPECT_TRUE(at::allclose(guided[0], alone[0], 1e-5, 1e-5));
    EXPECT_FALSE(at::allclose(guided[0], guided[1], 1e-2, 1e-2));
  }
}

// A code's frames are seen by others only through the layers that look around: 3 layers, of which one looks back and
// one ahead, let it reach one block either way.
TEST_F(DitNetwork, ACodeReachesAsFarAsTheBlocksAllow) {
  at::manual_seed(2);
  const auto voice = dit_->encode_voice(at::randn({1, 5, 2}));
  const at::Tensor speaker = at::randn({1, 4});
  const at::Tensor codes = at::arange(12);
  at::Tensor changed = codes.clone();
  changed[6] = 20;  // frames 12 and 13, block 3 of 6
  const at::Tensor x = at::randn({24, 2});
  const std::vector<DitModulation> modulations = dit_->modulations(at::tensor({0.4F}));
  const at::Tensor before =
      dit_->forward(x, dit_->condition(codes, voice, speaker, false), modulations[0])[0];
  const at::Tensor after =
      dit_->forward(x, dit_->condition(changed, voice, speaker, false), modulations[0])[0];
  const at::Tensor touched = before.ne(after).any(1);
  for (int64_t frame = 0; frame < 24; ++frame) {
    EXPECT_EQ(touched[frame].item<bool>(), frame >= 8 && frame < 20) << "frame " << frame;
  }
}

TEST_F(DitNetwork, SolverTakesFourEvaluationsPerStep) {
  const auto schedule = DitSchedule::make(*dit_, 3, std::nullopt);
  EXPECT_EQ(schedule->steps(), 2);
  EXPECT_EQ(schedule->modulations.size(), 7U);
  const at::Tensor noise = at::randn({4, 2});
  DitSolver solver(*dit_, schedule, condition(2, true), 0.5, noise);
  EXPECT_TRUE(at::equal(solver.state(), noise));
  for (int evaluation = 0; evaluation < 8; ++evaluation) {
    EXPECT_FALSE(solver.done());
    EXPECT_EQ(solver.at_step(), evaluation % 4 == 0);
    solver.advance();
  }
  EXPECT_TRUE(solver.done());
  EXPECT_EQ(solver.state().sizes(), noise.sizes());
  EXPECT_TRUE(DitSolver(*dit_, DitSchedule::make(*dit_, 1, -1.0), condition(2, true), 0.5, noise).done());
}

}  // namespace
}  // namespace omni::qwen2_5_omni
