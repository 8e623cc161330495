// The thinker engine: replies, rows for the talker, batches, cancelling, and what it refuses.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "models/engine.h"
#include "runtime/rng.h"
#include "tests/expect_error.h"
#include "tests/tiny_omni.h"

namespace omni {
namespace {

constexpr const char* kModel = "qwen2_5_omni.thinker";

nlohmann::json greedy(int64_t max_tokens) { return {{"temperature", 0.0}, {"max_tokens", max_tokens}}; }
nlohmann::json sampled(int64_t max_tokens) {
  return {{"temperature", 0.9},
          {"top_k", 20},
          {"top_p", 0.9},
          {"repetition_penalty", 1.1},
          {"max_tokens", max_tokens}};
}
nlohmann::json request(const std::vector<int64_t>& prompt, const nlohmann::json& sampling) {
  return {{"prompt_token_ids", prompt}, {"sampling", sampling}, {"seed", 7}, {"emit_rows", true}};
}
std::vector<int64_t> prompt_of(int64_t length, int64_t seed) {
  std::vector<int64_t> prompt;
  for (int64_t i = 0; i < length; ++i) prompt.push_back((seed * 31 + i * i * 7 + i) % 61);
  return prompt;
}

// All that one sequence has said.
struct Transcript {
  std::vector<int64_t> tokens;
  std::vector<at::Tensor> prompt_rows;
  std::vector<at::Tensor> reply_rows;
  at::Tensor rng_state;
  size_t rng_step = 0;  // the step, from 1, whose result carried it
  size_t steps = 0;
  SequenceResult last;

  void add(const SequenceResult& result) {
    ++steps;
    tokens.insert(tokens.end(), result.tokens.begin(), result.tokens.end());
    for (const NamedTensor& tensor : result.tensors) {
      if (tensor.name == "prompt_rows") prompt_rows.push_back(tensor.tensor);
      if (tensor.name == "reply_rows") reply_rows.push_back(tensor.tensor);
      if (tensor.name != "rng_state") continue;
      rng_state = tensor.tensor;
      rng_step = steps;
    }
    last = result;
  }
};

Transcript run_alone(Engine& engine, const nlohmann::json& params) {
  engine.admit(1000, params);
  Transcript transcript;
  do {
    transcript.add(engine.step({1000})[0]);
  } while (transcript.last.state == OMNI_SEQUENCE_READY);
  engine.release(1000);
  return transcript;
}

class ThinkerTest : public testing::Test {
 protected:
  c10::InferenceMode guard_;
  TinyOmni tiny_;
};

TEST_F(ThinkerTest, InfoDescribesTheModel) {
  const nlohmann::json info = tiny_.open(kModel)->info();
  EXPECT_EQ(info.at("model"), kModel);
  EXPECT_EQ(info.at("dtype"), "float32");
  EXPECT_EQ(info.at("device"), "cpu");
  EXPECT_EQ(info.at("vocab_size"), 61);
  EXPECT_EQ(info.at("hidden_size"), 24);
  EXPECT_EQ(info.at("max_positions"), 96);
  EXPECT_EQ(info.at("unused_tensors"), 1);
  EXPECT_EQ(info.at("weight_bytes").get<int64_t>(), 4 * info.at("parameters").get<int64_t>());
  EXPECT_EQ(tiny_.open(kModel, "bfloat16")->info().at("dtype"), "bfloat16");
}

TEST_F(ThinkerTest, ReportsTokensAndRowsStepByStep) {
  const auto engine = tiny_.open(kModel);
  const Transcript transcript = run_alone(*engine, request(prompt_of(5, 1), greedy(4)));
  EXPECT_EQ(transcript.tokens.size(), 4U);
  EXPECT_EQ(transcript.last.state, OMNI_SEQUENCE_DONE);
  EXPECT_EQ(transcript.last.finish_reason, OMNI_FINISH_LENGTH);
  ASSERT_EQ(transcript.prompt_rows.size(), 1U);
  EXPECT_EQ(transcript.prompt_rows[0].sizes(), (std::vector<int64_t>{5, 24}));
  ASSERT_EQ(transcript.reply_rows.size(), 3U);  // the last token is never fed
  EXPECT_EQ(transcript.reply_rows[0].sizes(), (std::vector<int64_t>{1, 24}));
}

TEST_F(ThinkerTest, RowsAreLeftOutUnlessAskedFor) {
  const auto engine = tiny_.open(kModel);
  nlohmann::json params = request(prompt_of(5, 1), greedy(3));
  params.erase("emit_rows");
  engine->admit(1, params);
  for (int step = 0; step < 3; ++step) EXPECT_TRUE(engine->step({1})[0].tensors.empty());
}

TEST_F(ThinkerTest, AStopTokenEndsTheReplyAndIsPartOfIt) {
  const auto engine = tiny_.open(kModel);
  const std::vector<int64_t> tokens = run_alone(*engine, request(prompt_of(5, 1), greedy(8))).tokens;
  nlohmann::json sampling = greedy(8);
  sampling["stop_token_ids"] = {tokens[2], 60};
  const Transcript stopped = run_alone(*engine, request(prompt_of(5, 1), sampling));
  EXPECT_EQ(stopped.last.finish_reason, OMNI_FINISH_STOP);
  const auto first = std::find(tokens.begin(), tokens.end(), tokens[2]);
  EXPECT_EQ(stopped.tokens, std::vector<int64_t>(tokens.begin(), first + 1));
}

TEST_F(ThinkerTest, AReplyOfOneTokenHasNoReplyRows) {
  const auto engine = tiny_.open(kModel);
  const Transcript transcript = run_alone(*engine, request(prompt_of(3, 2), sampled(1)));
  EXPECT_EQ(transcript.tokens.size(), 1U);
  EXPECT_EQ(transcript.last.state, OMNI_SEQUENCE_DONE);
  EXPECT_EQ(transcript.prompt_rows.size(), 1U);
  EXPECT_TRUE(transcript.reply_rows.empty());
  EXPECT_TRUE(transcript.rng_state.defined());
}

TEST_F(ThinkerTest, TheGeneratorIsHandedOnAtOnceIfGreedyElseAtTheEnd) {
  const auto engine = tiny_.open(kModel);
  const Transcript calm = run_alone(*engine, request(prompt_of(5, 1), greedy(4)));
  EXPECT_EQ(calm.rng_step, 1U);
  EXPECT_TRUE(at::equal(calm.rng_state, Rng(7).state()));
  const Transcript lively = run_alone(*engine, request(prompt_of(5, 1), sampled(4)));
  EXPECT_EQ(lively.rng_step, lively.steps);
  EXPECT_FALSE(at::equal(lively.rng_state, Rng(7).state()));
}

TEST_F(ThinkerTest, SeedsDecideSampledReplies) {
  const auto engine = tiny_.open(kModel);
  nlohmann::json params = request(prompt_of(5, 1), sampled(20));
  const std::vector<int64_t> first = run_alone(*engine, params).tokens;
  EXPECT_EQ(run_alone(*engine, params).tokens, first);
  params["seed"] = 8;
  EXPECT_NE(run_alone(*engine, params).tokens, first);
  params["seed"] = -1;
  const std::vector<int64_t> negative = run_alone(*engine, params).tokens;
  params["seed"] = 18446744073709551615ULL;
  EXPECT_EQ(run_alone(*engine, params).tokens, negative);
}

TEST_F(ThinkerTest, SamplingWaitsForTheGeneratorFromUpstream) {
  const auto engine = tiny_.open(kModel);
  nlohmann::json params = request(prompt_of(5, 1), sampled(3));
  const std::vector<int64_t> tokens = run_alone(*engine, params).tokens;
  params.erase("seed");
  params["rng_from_upstream"] = true;
  engine->admit(1, params);
  EXPECT_EQ(engine->step({1})[0].state, OMNI_SEQUENCE_WAITING);
  engine->feed(1, {{}, {{"rng_state", Rng(7).state()}}, true});
  std::vector<int64_t> got;
  for (int step = 0; step < 3; ++step) got.push_back(engine->step({1})[0].tokens.at(0));
  EXPECT_EQ(got, tokens);
}

// The hard promise: sampled or greedy, a sequence says the same alone and among 16 that come and go.
TEST_F(ThinkerTest, ABatchSaysWhatEachSaysAlone) {
  for (const char* dtype : {"float32", "bfloat16"}) {
    SCOPED_TRACE(dtype);
    const auto engine = tiny_.open(kModel, dtype);
    constexpr uint64_t kSequences = 16;
    std::vector<nlohmann::json> params;
    for (uint64_t i = 0; i < kSequences; ++i) {
      const auto n = static_cast<int64_t>(i);
      nlohmann::json sampling = i % 3 == 0 ? greedy(3 + 4 * n % 29) : sampled(3 + 5 * n % 31);
      sampling["stop_token_ids"] = {n, n + 20};
      params.push_back(request(prompt_of(1 + 7 * n % 40, n), sampling));
      params.back()["seed"] = i;
    }
    std::map<uint64_t, Transcript> transcripts;
    std::vector<uint64_t> running;
    for (uint64_t step = 0; step == 0 || !running.empty(); ++step) {
      for (uint64_t i = step; i < std::min<uint64_t>(kSequences, step == 0 ? 4 : step + 1); ++i) {
        if (step > 0 && i < 4) continue;  // four at once, then one more each step
        engine->admit(i, params[i]);
        running.insert(running.begin() + static_cast<int64_t>(running.size() / 2), i);
      }
      std::vector<uint64_t> left;
      for (const SequenceResult& result : engine->step(running)) {
        transcripts[result.sequence].add(result);
        if (result.state == OMNI_SEQUENCE_READY) {
          left.push_back(result.sequence);
        } else {
          engine->release(result.sequence);
        }
      }
      running = left;
    }
    ASSERT_EQ(transcripts.size(), kSequences);
    for (uint64_t i = 0; i < kSequences; ++i) {
      SCOPED_TRACE(i);
      const Transcript alone = run_alone(*engine, params[i]);
      EXPECT_EQ(transcripts[i].tokens, alone.tokens);
      EXPECT_EQ(transcripts[i].last.finish_reason, alone.last.finish_reason);
      EXPECT_TRUE(at::equal(transcripts[i].rng_state, alone.rng_state));
      EXPECT_TRUE(at::equal(at::cat(transcripts[i].prompt_rows), at::cat(alone.prompt_rows)));
      ASSERT_EQ(transcripts[i].reply_rows.size(), alone.reply_rows.size());
      for (size_t row = 0; row < alone.reply_rows.size(); ++row) {
        EXPECT_TRUE(at::equal(transcripts[i].reply_rows[row], alone.reply_rows[row]));
      }
    }
  }
}

TEST_F(ThinkerTest, ReleaseInEveryStateLeavesTheOthersAlone) {
  const auto engine = tiny_.open(kModel);
  const std::vector<int64_t> want = run_alone(*engine, request(prompt_of(6, 3), greedy(12))).tokens;
  engine->admit(1, request(prompt_of(6, 3), greedy(12)));
  engine->admit(2, request(prompt_of(4, 4), greedy(12)));  // admitted, never stepped
  engine->release(2);
  std::vector<int64_t> tokens = engine->step({1})[0].tokens;
  engine->admit(2, request(prompt_of(4, 4), greedy(12)));  // the number is free again
  for (const SequenceResult& result : engine->step({2, 1})) {
    if (result.sequence == 1) tokens.push_back(result.tokens.at(0));
  }
  engine->release(2);  // in the middle of its reply
  nlohmann::json waiting = request(prompt_of(4, 4), sampled(3));
  waiting.erase("seed");
  waiting["rng_from_upstream"] = true;
  engine->admit(3, waiting);
  for (const SequenceResult& result : engine->step({1, 3})) {
    if (result.sequence == 1) tokens.push_back(result.tokens.at(0));
  }
  engine->release(3);  // waiting
  engine->admit(4, request(prompt_of(4, 4), greedy(1)));
  EXPECT_EQ(engine->step({4})[0].state, OMNI_SEQUENCE_DONE);
  engine->release(4);  // done
  while (tokens.size() < want.size()) tokens.push_back(engine->step({1})[0].tokens.at(0));
  EXPECT_EQ(tokens, want);
  expect_error([&] { engine->release(4); }, OMNI_NOT_FOUND, {"no sequence 4"});
  expect_error([&] { engine->step({1, 4}); }, OMNI_NOT_FOUND, {"no sequence 4"});
  expect_error([&] { engine->step({1, 1}); }, OMNI_INVALID_ARGUMENT, {"sequence 1", "twice"});
}

TEST_F(ThinkerTest, ADoneSequenceStaysDone) {
  const auto engine = tiny_.open(kModel);
  engine->admit(1, request(prompt_of(4, 4), greedy(1)));
  engine->step({1});
  const SequenceResult again = engine->step({1})[0];
  EXPECT_EQ(again.state, OMNI_SEQUENCE_DONE);
  EXPECT_EQ(again.finish_reason, OMNI_FINISH_LENGTH);
  EXPECT_TRUE(again.tokens.empty());
  EXPECT_TRUE(again.tensors.empty());
}

TEST_F(ThinkerTest, TheReplyEndsWhereThePositionsEnd) {
  const auto engine = tiny_.open(kModel);
  const Transcript full = run_alone(*engine, request(prompt_of(90, 5), greedy(50)));
  EXPECT_EQ(full.last.finish_reason, OMNI_FINISH_LENGTH);
  EXPECT_EQ(full.tokens.size(), 7U);  // the last one is not fed, so it needs no position
  EXPECT_EQ(run_alone(*engine, request(prompt_of(96, 5), greedy(50))).tokens.size(), 1U);
}

TEST_F(ThinkerTest, ANaNFailsItsSequenceOnly) {
  // Token 60 is embedded as NaN.
  tiny_.poison = 60;
  const auto engine = tiny_.open(kModel);
  engine->admit(1, request(prompt_of(6, 3), greedy(3)));
  engine->admit(2, request({1, 60, 2}, greedy(3)));
  const std::vector<SequenceResult> results = engine->step({2, 1});
  EXPECT_EQ(results[0].state, OMNI_SEQUENCE_FAILED);
  EXPECT_EQ(results[0].code, OMNI_INTERNAL);
  EXPECT_NE(results[0].message.find("sequence 2"), std::string::npos) << results[0].message;
  EXPECT_TRUE(results[0].tensors.empty());
  EXPECT_EQ(results[1].state, OMNI_SEQUENCE_READY);
  EXPECT_EQ(engine->step({2})[0].state, OMNI_SEQUENCE_FAILED);
  engine->feed(2, {});  // too late, and no error
  engine->release(2);
}

TEST_F(ThinkerTest, TiedWeightsServeAsOutputLayer) {
  tiny_.tied = true;
  tiny_.config["thinker_config"]["tie_word_embeddings"] = true;
  const auto engine = tiny_.open(kModel);
  EXPECT_EQ(run_alone(*engine, request(prompt_of(5, 1), greedy(4))).tokens.size(), 4U);
}

TEST_F(ThinkerTest, AMissingOutputLayerIsAnErrorUnlessTied) {
  tiny_.tied = true;
  expect_error([&] { tiny_.open(kModel); }, OMNI_INVALID_ARGUMENT,
               {"thinker.lm_head.weight", "missing", "[61, 24]"});
}

TEST_F(ThinkerTest, RefusesBadParams) {
  const auto engine = tiny_.open(kModel);
  engine->admit(5, request(prompt_of(5, 1), greedy(4)));
  struct Case {
    const char* name;
    const char* patch;
    std::vector<std::string> parts;
  };
  const std::vector<Case> cases = {
      {"no prompt", R"({"prompt_token_ids": null})", {"\"prompt_token_ids\"", "missing"}},
      {"empty prompt", R"({"prompt_token_ids": []})", {"\"prompt_token_ids\"", "at least one"}},
      {"token too high", R"({"prompt_token_ids": [1, 61]})", {"token 61", "vocabulary of 61"}},
      {"negative token", R"({"prompt_token_ids": [-1]})", {"token -1"}},
      {"no list", R"({"prompt_token_ids": "hello"})", {"\"prompt_token_ids\""}},
      {"no sampling", R"({"sampling": null})", {"\"sampling\"", "missing"}},
      {"bad temperature", R"({"sampling": {"temperature": -1}})", {"\"temperature\""}},
      {"unknown sampling key", R"({"sampling": {"beam": 2}})", {"\"beam\""}},
      {"unknown key", R"({"speaker": "Ethan"})", {"unknown key \"speaker\"", "prompt_token_ids", "seed"}},
      {"two generators", R"({"rng_from_upstream": true})", {"\"seed\"", "\"rng_from_upstream\""}},
      {"no generator", R"({"seed": null, "sampling": {"temperature": 1.0}})", {"\"seed\""}},
      {"bad seed", R"({"seed": "x"})", {"\"seed\"", "integer"}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    nlohmann::json params = request(prompt_of(5, 1), greedy(4));
    params.merge_patch(nlohmann::json::parse(c.patch));
    std::vector<std::string> parts = c.parts;
    parts.emplace_back("sequence 9");
    expect_error([&] { engine->admit(9, params); }, OMNI_INVALID_ARGUMENT, parts);
    expect_error([&] { engine->release(9); }, OMNI_NOT_FOUND, {"no sequence 9"});
  }
  expect_error([&] { engine->admit(9, request(prompt_of(97, 1), greedy(4))); }, OMNI_INVALID_ARGUMENT,
               {"97 tokens", "96 positions", "max_position_embeddings"});
  expect_error([&] { engine->admit(5, request(prompt_of(5, 1), greedy(4))); }, OMNI_INVALID_ARGUMENT,
               {"sequence 5", "in use"});
  EXPECT_EQ(engine->step({5})[0].tokens.size(), 1U);
}

TEST_F(ThinkerTest, RefusesInputThatItDoesNotKnow) {
  const auto engine = tiny_.open(kModel);
  engine->admit(1, request(prompt_of(5, 1), greedy(4)));
  expect_error([&] { engine->feed(1, {{3}, {}, false}); }, OMNI_INVALID_ARGUMENT, {"no tokens"});
  expect_error([&] { engine->feed(1, {{}, {{"rows", at::zeros({1})}}, false}); }, OMNI_INVALID_ARGUMENT,
               {"\"rows\""});
  expect_error([&] { engine->feed(2, {}); }, OMNI_NOT_FOUND, {"no sequence 2"});
  engine->feed(1, {{}, {}, true});
  expect_error([&] { engine->feed(1, {}); }, OMNI_FAILED_PRECONDITION, {"after the last one"});
  EXPECT_EQ(engine->step({1})[0].tokens.size(), 1U);
}

TEST_F(ThinkerTest, OpensNothingThatContradictsItself) {
  tiny_.config["thinker_config"]["text_config"]["num_key_value_heads"] = 4;
  expect_error([&] { tiny_.open(kModel); }, OMNI_INVALID_ARGUMENT,
               {"config.json", "thinker_config.text_config", "\"num_key_value_heads\""});
}

}  // namespace
}  // namespace omni
