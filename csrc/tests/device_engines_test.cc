// The engines on a device that is not the CPU: no GPU is needed to see that every tensor is where its op wants it, that
// no kernel of the CPU gets memory of a device, and that the plain paths say what the fast ones say.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "host_blind_device.h"
#include "models/engine.h"
#include "tests/tiny_omni.h"
#include "token2wav_checkpoint.h"

namespace omni {

std::unique_ptr<Engine> open_qwen2_5_omni_token2wav(const EngineConfig& config);

namespace {

constexpr double kTolerance = 1e-4;

class DeviceEngines : public ::testing::Test {
 protected:
  DeviceEngines() { host_blind::install(); }

  c10::InferenceMode inference_;
};

// The device does what it is for.
TEST_F(DeviceEngines, TheDeviceRefusesTensorsFromElsewhere) {
  const at::Tensor here = at::ones({3}, host_blind::kDevice);
  const at::Tensor there = at::ones({3});
  EXPECT_THROW(here + there, std::exception);
  EXPECT_THROW(at::cat({here, there}), std::exception);
  EXPECT_EQ((here + 1).device(), host_blind::kDevice);
  EXPECT_EQ((here + here).sum().item<double>(), 6);
  EXPECT_TRUE(at::equal(here.cpu(), there));
  EXPECT_TRUE(at::equal(there.to(host_blind::kDevice).view({3, 1}).expand({3, 2}).cpu(), at::ones({3, 2})));
  at::Tensor changed = here.clone();
  changed.narrow(0, 1, 1).fill_(5);
  EXPECT_TRUE(at::equal(changed.cpu(), at::tensor({1.0F, 5.0F, 1.0F})));
  EXPECT_DEATH(*static_cast<volatile float*>(const_cast<void*>(here.const_data_ptr())), "");
}

// All that a sequence says, tensors on the CPU.
struct Said {
  std::vector<int64_t> tokens;
  std::vector<NamedTensor> tensors;
};

Said run(Engine& engine, const nlohmann::json& params, const std::vector<EngineInput>& inputs) {
  engine.admit(1, params);
  for (const EngineInput& input : inputs) engine.feed(1, input);
  Said said;
  while (true) {
    const SequenceResult result = engine.step({1})[0];
    EXPECT_NE(result.state, OMNI_SEQUENCE_FAILED) << result.message;
    EXPECT_NE(result.state, OMNI_SEQUENCE_WAITING);
    said.tokens.insert(said.tokens.end(), result.tokens.begin(), result.tokens.end());
    for (const NamedTensor& output : result.tensors)
      said.tensors.push_back({output.name, output.tensor.cpu()});
    if (result.state != OMNI_SEQUENCE_READY) return said;
  }
}

void expect_same(const Said& got, const Said& want, double tolerance) {
  EXPECT_EQ(got.tokens, want.tokens);
  ASSERT_EQ(got.tensors.size(), want.tensors.size());
  for (size_t i = 0; i < want.tensors.size(); ++i) {
    EXPECT_EQ(got.tensors[i].name, want.tensors[i].name);
    ASSERT_EQ(got.tensors[i].tensor.sizes(), want.tensors[i].tensor.sizes());
    const at::Tensor difference =
        (got.tensors[i].tensor.to(at::kDouble) - want.tensors[i].tensor.to(at::kDouble)).abs();
    EXPECT_LE(difference.max().item<double>(), tolerance) << want.tensors[i].name;
  }
}

TEST_F(DeviceEngines, ThinkerAndTalkerSayTheSame) {
  TinyOmni tiny;
  const nlohmann::json sampling = {{"temperature", 0.8}, {"top_k", 20}, {"top_p", 0.9}, {"max_tokens", 12}};
  const nlohmann::json prompt = {
      {"prompt_token_ids", {3, 14, 15, 9, 2, 6}}, {"sampling", sampling}, {"seed", 7}, {"emit_rows", true}};
  const Said want = run(*tiny.open("qwen2_5_omni.thinker"), prompt, {});
  const auto thinker = tiny.open("qwen2_5_omni.thinker", "auto", host_blind::kDevice);
  EXPECT_EQ(thinker->info().at("device"), host_blind::kDevice.str());
  expect_same(run(*thinker, prompt, {}), want, kTolerance);

  // Rows cross from stage to stage on the host.
  std::vector<EngineInput> inputs;
  for (const NamedTensor& output : want.tensors) {
    if (output.name == "rng_state") continue;
    EngineInput input;
    input.tensors = {output};
    inputs.push_back(std::move(input));
  }
  inputs.back().last = true;
  const nlohmann::json speech = {{"prompt_tokens", 6}, {"sampling", sampling}, {"seed", 7}};
  const Said codes = run(*tiny.open("qwen2_5_omni.talker"), speech, inputs);
  EXPECT_FALSE(codes.tokens.empty());
  expect_same(run(*tiny.open("qwen2_5_omni.talker", "auto", host_blind::kDevice), speech, inputs), codes,
              kTolerance);
}

// Several sequences in one step, and a window that cuts off what is old.
TEST_F(DeviceEngines, ABatchSaysTheSame) {
  TinyOmni tiny;
  tiny.config["thinker_config"]["text_config"].update(
      {{"use_sliding_window", true}, {"sliding_window", 4}, {"max_window_layers", 1}});
  const auto cpu = tiny.open("qwen2_5_omni.thinker");
  const auto device = tiny.open("qwen2_5_omni.thinker", "auto", host_blind::kDevice);
  for (Engine* engine : {cpu.get(), device.get()}) {
    for (uint64_t id = 0; id < 3; ++id) {
      std::vector<int64_t> prompt;
      for (uint64_t i = 0; i < 3 + 5 * id; ++i) prompt.push_back(static_cast<int64_t>((7 * id + 3 * i) % 61));
      engine->admit(id, {{"prompt_token_ids", prompt},
                         {"sampling", {{"temperature", 0.0}, {"max_tokens", 8}}},
                         {"seed", 1}});
    }
  }
  for (int step = 0; step < 8; ++step) {
    const auto want = cpu->step({0, 1, 2});
    const auto got = device->step({0, 1, 2});
    for (size_t i = 0; i < want.size(); ++i) {
      EXPECT_EQ(got[i].message, want[i].message);
      EXPECT_EQ(got[i].tokens, want[i].tokens);
    }
  }
}

TEST_F(DeviceEngines, SpeechSoundsTheSame) {
  TempFolder folder;
  write_token2wav_checkpoint(folder, token2wav_config());
  const auto open = [&](at::Device device) {
    EngineConfig config;
    config.model = "qwen2_5_omni.token2wav";
    config.checkpoint = Checkpoint::open(folder.path());
    config.dtype = "auto";
    config.device = device;
    std::unique_ptr<Engine> engine = open_qwen2_5_omni_token2wav(config);
    int64_t done = 0;
    for (int64_t total = 1; done < total;) engine->load(done, total);
    return engine;
  };
  EngineInput codes;
  for (int64_t i = 0; i < 40; ++i) codes.tokens.push_back((7 * i + i * i) % 21);
  codes.last = true;
  const nlohmann::json params = {{"seed", 3}, {"num_steps", 3}};
  const Said want = run(*open(at::kCPU), params, {codes});
  EXPECT_FALSE(want.tensors.empty());
  expect_same(run(*open(host_blind::kDevice), params, {codes}), want, 2e-3);
}

}  // namespace
}  // namespace omni
