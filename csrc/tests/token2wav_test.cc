// The token2wav engine over a small random checkpoint: what a caller sees of it. That its audio is the reference's is
// shown elsewhere, on checkpoints that the reference has run.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "expect_error.h"
#include "models/engine.h"
#include "runtime/rng.h"
#include "token2wav_checkpoint.h"

namespace omni {

std::unique_ptr<Engine> open_qwen2_5_omni_token2wav(const EngineConfig& config);

namespace {

constexpr int64_t kSamplesPerCode = 2 * 6;  // repeats x upsample rates

class Token2WavTest : public ::testing::Test {
 protected:
  Token2WavTest() {
    // Work this small is slower on several threads.
    at::set_num_threads(1);
    write_token2wav_checkpoint(folder_, token2wav_config());
  }

  std::unique_ptr<Engine> open() {
    EngineConfig config;
    config.model = "qwen2_5_omni.token2wav";
    config.checkpoint = Checkpoint::open(folder_.path());
    config.dtype = "auto";
    return open_qwen2_5_omni_token2wav(config);
  }
  std::unique_ptr<Engine> open_loaded() {
    std::unique_ptr<Engine> engine = open();
    int64_t done = 0;
    for (int64_t total = 1; done < total;) engine->load(done, total);
    return engine;
  }

  c10::InferenceMode inference_;
  TempFolder folder_;
};

EngineInput codes(std::vector<int64_t> tokens, bool last = true) {
  EngineInput input;
  input.tokens = std::move(tokens);
  input.last = last;
  return input;
}

EngineInput rng_state(uint64_t seed) {
  EngineInput input;
  input.tensors.push_back({"rng_state", Rng(seed).state()});
  return input;
}

std::vector<int64_t> some_codes(int64_t count) {
  std::vector<int64_t> result(count);
  for (int64_t i = 0; i < count; ++i) result[i] = (i * 7 + 3) % 21;
  return result;
}

SequenceResult step(Engine& engine, uint64_t sequence) { return engine.step({sequence}).at(0); }

// Steps one sequence until it is over and returns its audio.
at::Tensor run(Engine& engine, uint64_t sequence, int* steps = nullptr) {
  std::vector<at::Tensor> parts{at::empty({0})};
  for (int i = 1;; ++i) {
    const SequenceResult result = step(engine, sequence);
    for (const NamedTensor& tensor : result.tensors) {
      EXPECT_EQ(tensor.name, "audio");
      parts.push_back(tensor.tensor);
    }
    if (steps != nullptr) *steps = i;
    if (result.state == OMNI_SEQUENCE_READY) continue;
    EXPECT_EQ(result.state, OMNI_SEQUENCE_DONE) << result.message;
    EXPECT_EQ(result.finish_reason, OMNI_FINISH_STOP);
    return at::cat(parts);
  }
}

at::Tensor speak(Engine& engine, const nlohmann::json& params, int64_t count) {
  engine.admit(1, params);
  engine.feed(1, codes(some_codes(count)));
  const at::Tensor audio = run(engine, 1);
  engine.release(1);
  return audio;
}

TEST_F(Token2WavTest, TellsAboutItself) {
  const std::unique_ptr<Engine> engine = open();
  const nlohmann::json info = engine->info();
  EXPECT_EQ(info["model"], "qwen2_5_omni.token2wav");
  EXPECT_EQ(info["dtype"], "float32");
  EXPECT_EQ(info["device"], "cpu");
  EXPECT_EQ(info["speakers"], nlohmann::json({"Ethan", "Chelsie"}));
  EXPECT_EQ(info["default_speaker"], "Chelsie");
  EXPECT_EQ(info["sample_rate"], 24000);
  EXPECT_EQ(info["samples_per_code"], kSamplesPerCode);
  EXPECT_EQ(info["limits"]["max_codes"], 200);
  EXPECT_EQ(info["unused_tensors"], 0);
  EXPECT_EQ(info["weight_bytes"].get<int64_t>(), 4 * info["parameters"].get<int64_t>());
}

TEST_F(Token2WavTest, LoadingEndsWhenTheWeightsAreLaidOut) {
  const std::unique_ptr<Engine> engine = open();
  int64_t before = -1;
  int64_t done = 0;
  int64_t total = 1;
  while (done < total) {
    engine->load(done, total);
    EXPECT_GE(done, before);
    before = done;
  }
  EXPECT_EQ(total, engine->info()["weight_bytes"].get<int64_t>());
  engine->load(done, total);
  EXPECT_EQ(done, total);
}

TEST_F(Token2WavTest, NineStepsAndTheVocoder) {
  const std::unique_ptr<Engine> engine = open_loaded();
  for (const int64_t count : {1, 2, 3, 13}) {
    SCOPED_TRACE(count);
    engine->admit(5, {{"seed", 1}});
    engine->feed(5, codes(some_codes(count)));
    int steps = 0;
    const at::Tensor audio = run(*engine, 5, &steps);
    EXPECT_EQ(steps, 9 + 1);
    EXPECT_EQ(audio.sizes(), at::IntArrayRef({count * kSamplesPerCode}));
    EXPECT_TRUE(audio.isfinite().all().item<bool>());
    EXPECT_LE(audio.abs().max().item<float>(), 1.0F);
    EXPECT_GT(audio.abs().max().item<float>(), 0.0F);
    // Whoever asks once more hears the same, and no audio.
    const SequenceResult again = step(*engine, 5);
    EXPECT_EQ(again.state, OMNI_SEQUENCE_DONE);
    EXPECT_TRUE(again.tensors.empty());
    engine->release(5);
  }
}

TEST_F(Token2WavTest, EveryParameterMatters) {
  const std::unique_ptr<Engine> engine = open_loaded();
  const nlohmann::json base = {{"seed", 1}, {"speaker", "Chelsie"}};
  const at::Tensor expected = speak(*engine, base, 5);
  EXPECT_TRUE(at::equal(expected, speak(*engine, base, 5)));
  EXPECT_TRUE(at::equal(expected, speak(*engine, {{"seed", 1}}, 5)));
  EXPECT_TRUE(at::equal(
      expected,
      speak(*engine, {{"seed", 1}, {"num_steps", 10}, {"guidance_scale", 0.5}, {"sway_coefficient", -1}},
            5)));
  for (const nlohmann::json& change : std::vector<nlohmann::json>{{{"seed", 2}},
                                                                  {{"speaker", "Ethan"}},
                                                                  {{"num_steps", 5}},
                                                                  {{"guidance_scale", 0.0}},
                                                                  {{"guidance_scale", 2.0}},
                                                                  {{"sway_coefficient", 0.5}},
                                                                  {{"sway_coefficient", nullptr}}}) {
    SCOPED_TRACE(change.dump());
    nlohmann::json params = base;
    params.update(change);
    EXPECT_FALSE(at::equal(expected, speak(*engine, params, 5)));
  }
}

TEST_F(Token2WavTest, CodesMayComeInPieces) {
  const std::unique_ptr<Engine> engine = open_loaded();
  const at::Tensor expected = speak(*engine, {{"seed", 1}}, 3);
  engine->admit(2, {{"seed", 1}});
  EXPECT_EQ(step(*engine, 2).state, OMNI_SEQUENCE_WAITING);
  const std::vector<int64_t> all = some_codes(3);
  engine->feed(2, codes({all[0]}, false));
  engine->feed(2, codes({}, false));
  EXPECT_EQ(step(*engine, 2).state, OMNI_SEQUENCE_WAITING);
  engine->feed(2, codes({all[1], all[2]}, false));
  EXPECT_EQ(step(*engine, 2).state, OMNI_SEQUENCE_WAITING);
  engine->feed(2, codes({}));
  EXPECT_TRUE(at::equal(expected, run(*engine, 2)));
}

TEST_F(Token2WavTest, WaitsForTheGeneratorOfTheStageBefore) {
  const std::unique_ptr<Engine> engine = open_loaded();
  const at::Tensor expected = speak(*engine, {{"seed", 9}}, 4);
  engine->admit(2, {{"rng_from_upstream", true}});
  engine->feed(2, rng_state(9));
  EXPECT_EQ(step(*engine, 2).state, OMNI_SEQUENCE_WAITING);
  engine->feed(2, codes(some_codes(4)));
  EXPECT_TRUE(at::equal(expected, run(*engine, 2)));

  engine->admit(3, {{"rng_from_upstream", true}});
  engine->feed(3, codes(some_codes(4), false));
  EXPECT_EQ(step(*engine, 3).state, OMNI_SEQUENCE_WAITING);
  EngineInput end = rng_state(9);
  end.last = true;
  engine->feed(3, std::move(end));
  EXPECT_TRUE(at::equal(expected, run(*engine, 3)));
}

// Upstream stages hand the generator on to whoever follows.
TEST_F(Token2WavTest, ASeedOfItsOwnWinsOverTheGenerator) {
  const std::unique_ptr<Engine> engine = open_loaded();
  const at::Tensor expected = speak(*engine, {{"seed", 9}}, 4);
  engine->admit(2, {{"seed", 9}});
  engine->feed(2, rng_state(1));
  engine->feed(2, codes(some_codes(4)));
  EXPECT_TRUE(at::equal(expected, run(*engine, 2)));
}

TEST_F(Token2WavTest, NoCodesMakeNoAudio) {
  const std::unique_ptr<Engine> engine = open_loaded();
  for (const nlohmann::json& params :
       std::vector<nlohmann::json>{{{"seed", 1}}, {{"rng_from_upstream", true}}}) {
    engine->admit(1, params);
    engine->feed(1, codes({}));
    int steps = 0;
    EXPECT_EQ(run(*engine, 1, &steps).numel(), 0);
    EXPECT_EQ(steps, 1);
    engine->release(1);
  }
}

// Three sequences of different lengths, admitted at different times, one of them cancelled half-way: each of the others
// gets the bits that it gets alone.
TEST_F(Token2WavTest, SequencesDoNotTouchEachOther) {
  at::set_num_threads(2);
  const std::unique_ptr<Engine> engine = open_loaded();
  const nlohmann::json params_a = {{"seed", 1}};
  const nlohmann::json params_b = {
      {"seed", 2}, {"speaker", "Ethan"}, {"num_steps", 4}, {"guidance_scale", 1.5}};
  const at::Tensor alone_a = speak(*engine, params_a, 17);
  const at::Tensor alone_b = speak(*engine, params_b, 6);

  engine->admit(1, params_a);
  engine->feed(1, codes(some_codes(17)));
  engine->admit(3, {{"seed", 3}});
  engine->feed(3, codes(some_codes(9)));
  std::map<uint64_t, std::vector<at::Tensor>> audio;
  std::map<uint64_t, omni_sequence_state> states{{1, OMNI_SEQUENCE_READY}, {3, OMNI_SEQUENCE_READY}};
  for (int i = 0; i < 12; ++i) {
    if (i == 3) {
      engine->admit(2, params_b);
      engine->feed(2, codes(some_codes(6)));
      states[2] = OMNI_SEQUENCE_READY;
    }
    if (i == 5) {
      engine->release(3);
      states.erase(3);
    }
    std::vector<uint64_t> batch;
    for (const auto& [sequence, state] : states) batch.insert(batch.begin(), sequence);
    for (SequenceResult& result : engine->step(batch)) {
      states[result.sequence] = result.state;
      for (NamedTensor& tensor : result.tensors) audio[result.sequence].push_back(tensor.tensor);
    }
  }
  EXPECT_EQ(states[1], OMNI_SEQUENCE_DONE);
  EXPECT_EQ(states[2], OMNI_SEQUENCE_DONE);
  EXPECT_TRUE(at::equal(alone_a, at::cat(audio[1])));
  EXPECT_TRUE(at::equal(alone_b, at::cat(audio[2])));
}

TEST_F(Token2WavTest, BadCodesFailTheirSequenceOnly) {
  const std::unique_ptr<Engine> engine = open_loaded();
  const at::Tensor expected = speak(*engine, {{"seed", 1}}, 4);
  struct Case {
    std::vector<int64_t> tokens;
    const char* message;
  };
  const std::vector<Case> cases{
      {{0, 20, 21}, "code 21 at position 2 is not in the vocoder's range, 0 to 20"},
      {{-1}, "code -1 at position 0 is not in the vocoder's range, 0 to 20"},
      {std::vector<int64_t>(201, 0), "201 codes make 402 mel frames, the model takes at most 400"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.message);
    engine->admit(1, {{"seed", 1}});
    engine->feed(1, codes(some_codes(4)));
    engine->admit(2, {{"seed", 1}});
    engine->feed(2, codes(c.tokens));
    for (int i = 0; i < 2; ++i) {
      const std::vector<SequenceResult> results = engine->step({2, 1});
      EXPECT_EQ(results[0].state, OMNI_SEQUENCE_FAILED);
      EXPECT_EQ(results[0].code, OMNI_INVALID_ARGUMENT);
      EXPECT_EQ(results[0].message, c.message);
      EXPECT_EQ(results[1].state, OMNI_SEQUENCE_READY);
    }
    engine->release(2);
    EXPECT_TRUE(at::equal(expected, run(*engine, 1)));
    engine->release(1);
  }
}

TEST_F(Token2WavTest, WrongCallsAreRefusedAndChangeNothing) {
  const std::unique_ptr<Engine> engine = open_loaded();
  struct Case {
    nlohmann::json params;
    const char* message;
  };
  const std::vector<Case> cases{
      {nlohmann::json::object(), "expected either seed or rng_from_upstream"},
      {{{"seed", 1}, {"rng_from_upstream", true}}, "expected either seed or rng_from_upstream"},
      {{{"seed", 1}, {"speaker", "Nobody"}},
       "speaker \"Nobody\" is not in the checkpoint, which has: Ethan, Chelsie"},
      {{{"seed", 1}, {"num_steps", 0}}, "num_steps: expected 1 to 100, found 0"},
      {{{"seed", 1}, {"num_steps", 101}}, "num_steps: expected 1 to 100, found 101"},
      {{{"seed", 1}, {"guidance_scale", "much"}}, "guidance_scale"},
      {{{"seed", 1}, {"temperature", 1}}, "temperature"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.params.dump());
    expect_error([&] { engine->admit(1, c.params); }, OMNI_INVALID_ARGUMENT, {c.message});
    expect_error([&] { engine->step({1}); }, OMNI_NOT_FOUND, {"no sequence 1"});
  }
  expect_error([&] { engine->feed(1, codes({1})); }, OMNI_NOT_FOUND, {"no sequence 1"});
  expect_error([&] { engine->release(1); }, OMNI_NOT_FOUND, {"no sequence 1"});

  engine->admit(1, {{"seed", 1}});
  expect_error([&] { engine->admit(1, {{"seed", 1}}); }, OMNI_FAILED_PRECONDITION, {"sequence 1 is in use"});
  EngineInput unknown = codes({1, 2});
  unknown.tensors.push_back({"rows", at::zeros({1})});
  expect_error([&] { engine->feed(1, unknown); }, OMNI_INVALID_ARGUMENT, {"unknown tensor \"rows\""});
  engine->feed(1, codes(some_codes(4)));
  expect_error([&] { engine->feed(1, codes({1})); }, OMNI_FAILED_PRECONDITION,
               {"had its last input already"});
  // An unknown sequence is found before any other is advanced.
  expect_error([&] { engine->step({1, 7}); }, OMNI_NOT_FOUND, {"no sequence 7"});
  int steps = 0;
  run(*engine, 1, &steps);
  EXPECT_EQ(steps, 10);

  engine->admit(2, {{"rng_from_upstream", true}});
  EngineInput broken;
  broken.tensors.push_back({"rng_state", at::zeros({3}, at::kByte)});
  expect_error([&] { engine->feed(2, broken); }, OMNI_INVALID_ARGUMENT, {});
  engine->feed(2, rng_state(1));
  expect_error([&] { engine->feed(2, rng_state(1)); }, OMNI_INVALID_ARGUMENT, {"has its generator already"});
}

TEST_F(Token2WavTest, SpeakersMustFitTheNetwork) {
  struct Case {
    const char* key;
    int64_t value;
    const char* message;
  };
  for (const Case& c : std::vector<Case>{
           {"enc_emb_dim", 6, "spk_dict.pt: Ethan: cond: expected [1, 6], found [1, 4]"},
           {"mel_dim", 3, "spk_dict.pt: Ethan: ref_mel: expected [1, at least 3, 3], found [1, 3, 2]"}}) {
    SCOPED_TRACE(c.message);
    nlohmann::json config = token2wav_config();
    config["dit_config"][c.key] = c.value;
    if (std::string(c.key) == "mel_dim") config["bigvgan_config"][c.key] = c.value;
    std::filesystem::remove(folder_.path() + "/spk_dict.pt");
    write_token2wav_checkpoint(folder_, config);
    expect_error([&] { open(); }, OMNI_INVALID_ARGUMENT, {c.message});
  }
  nlohmann::json config = token2wav_config();
  config["dit_config"]["enc_dilations"][1] = 3;
  std::filesystem::remove(folder_.path() + "/spk_dict.pt");
  write_token2wav_checkpoint(folder_, config);
  expect_error([&] { open(); }, OMNI_INVALID_ARGUMENT,
               {"Ethan: ref_mel: expected [1, at least 4, 2], found [1, 3, 2]"});
  std::filesystem::remove(folder_.path() + "/spk_dict.pt");
  expect_error([&] { open(); }, OMNI_NOT_FOUND, {"spk_dict.pt"});
}

}  // namespace
}  // namespace omni
