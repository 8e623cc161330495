// The talker engine: rows in pieces, waiting, the end of the reply, codes, batches, cancelling, and what it refuses.
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

constexpr const char* kModel = "qwen2_5_omni.talker";
constexpr int64_t kWidth = 24;
constexpr int64_t kCodecStart = 41;
constexpr int64_t kCodecEnd = 42;
constexpr int64_t kCodecPad = 43;

nlohmann::json greedy(int64_t max_tokens) {
  return {{"temperature", 0.0}, {"repetition_penalty", 1.05}, {"max_tokens", max_tokens}};
}
nlohmann::json sampled(int64_t max_tokens) {
  return {{"temperature", 0.9},
          {"top_k", 40},
          {"top_p", 0.8},
          {"repetition_penalty", 1.05},
          {"max_tokens", max_tokens}};
}
nlohmann::json request(int64_t prompt_tokens, const nlohmann::json& sampling) {
  return {{"prompt_tokens", prompt_tokens}, {"sampling", sampling}, {"seed", 7}};
}
at::Tensor rows(int64_t count, uint64_t seed) {
  return at::randn({count, kWidth}, at::detail::createCPUGenerator(seed), at::TensorOptions());
}
EngineInput input(std::vector<NamedTensor> tensors, bool last) { return {{}, std::move(tensors), last}; }

struct Spoken {
  std::vector<int64_t> codes;
  at::Tensor rng_state;
  SequenceResult last;

  void add(const SequenceResult& result) {
    codes.insert(codes.end(), result.tokens.begin(), result.tokens.end());
    for (const NamedTensor& tensor : result.tensors) {
      EXPECT_EQ(tensor.name, "rng_state");
      rng_state = tensor.tensor;
    }
    last = result;
  }
};

// Steps until nothing more can be said without input.
void run(Engine& engine, uint64_t id, Spoken& spoken) {
  do {
    spoken.add(engine.step({id})[0]);
  } while (spoken.last.state == OMNI_SEQUENCE_READY);
}

Spoken run_whole(Engine& engine, const nlohmann::json& params, const at::Tensor& prompt,
                 const at::Tensor& reply) {
  engine.admit(1000, params);
  engine.feed(1000, input({{"prompt_rows", prompt}, {"reply_rows", reply}}, true));
  Spoken spoken;
  run(engine, 1000, spoken);
  engine.release(1000);
  return spoken;
}

class TalkerTest : public testing::Test {
 protected:
  c10::InferenceMode guard_;
  TinyOmni tiny_;
};

TEST_F(TalkerTest, InfoNamesTheSpeakers) {
  const nlohmann::json info = tiny_.open(kModel)->info();
  EXPECT_EQ(info.at("speakers"), (nlohmann::json{"Ethan", "Chelsie"}));
  EXPECT_EQ(info.at("default_speaker"), "Chelsie");
  EXPECT_EQ(info.at("vocab_size"), 45);
  EXPECT_EQ(info.at("hidden_size"), 20);
  EXPECT_EQ(info.at("unused_tensors"), 0);
}

TEST_F(TalkerTest, PiecesOfRowsSayWhatTheWholeSays) {
  const auto engine = tiny_.open(kModel);
  const at::Tensor prompt = rows(9, 5);
  for (const nlohmann::json& sampling : {greedy(30), sampled(30)}) {
    at::Tensor reply;
    Spoken whole;
    for (uint64_t seed = 0; seed < 50 && whole.codes.size() < 8;
         ++seed) {  // one that says more than its rows
      reply = rows(6, seed);
      whole = run_whole(*engine, request(9, sampling), prompt, reply);
    }
    ASSERT_GE(whole.codes.size(), 8U);
    engine->admit(1, request(9, sampling));
    Spoken spoken;
    EXPECT_EQ(engine->step({1})[0].state, OMNI_SEQUENCE_WAITING);
    engine->feed(1, input({{"prompt_rows", prompt.narrow(0, 0, 4)}}, false));
    EXPECT_EQ(engine->step({1})[0].state, OMNI_SEQUENCE_WAITING);
    engine->feed(1, input({{"prompt_rows", prompt.narrow(0, 4, 5)}}, false));
    EXPECT_EQ(engine->step({1})[0].state, OMNI_SEQUENCE_WAITING);
    for (int64_t row = 0; row < 6; ++row) {
      engine->feed(1, input({{"reply_rows", reply.narrow(0, row, 1)}}, false));
      const size_t before = spoken.codes.size();
      run(*engine, 1, spoken);
      if (spoken.last.state == OMNI_SEQUENCE_DONE) break;
      EXPECT_EQ(spoken.codes.size(), before + 1) << "a code for each row";
    }
    engine->feed(1, input({}, true));
    if (spoken.last.state != OMNI_SEQUENCE_DONE) run(*engine, 1, spoken);
    EXPECT_EQ(spoken.codes, whole.codes);
    EXPECT_EQ(spoken.last.finish_reason, whole.last.finish_reason);
    engine->release(1);
  }
}

TEST_F(TalkerTest, CodesNeverContainStartOrStops) {
  const auto engine = tiny_.open(kModel);
  bool stopped = false;
  for (int64_t seed = 0; seed < 20; ++seed) {
    nlohmann::json params = request(3, sampled(40));
    params["seed"] = seed;
    const Spoken spoken = run_whole(*engine, params, rows(3, 3), rows(4, 4));
    for (const int64_t code : spoken.codes) {
      EXPECT_NE(code, kCodecStart);
      EXPECT_NE(code, kCodecEnd);
      EXPECT_NE(code, kCodecPad);
    }
    stopped = stopped || spoken.last.finish_reason == OMNI_FINISH_STOP;
    EXPECT_TRUE(spoken.last.finish_reason == OMNI_FINISH_STOP || spoken.codes.size() == 40U);
  }
  EXPECT_TRUE(stopped);
}

TEST_F(TalkerTest, ARequestMayAddStops) {
  const auto engine = tiny_.open(kModel);
  const Spoken spoken = run_whole(*engine, request(3, greedy(10)), rows(3, 3), rows(4, 4));
  ASSERT_GE(spoken.codes.size(), 2U);
  nlohmann::json sampling = greedy(10);
  sampling["stop_token_ids"] = {spoken.codes[0]};
  const Spoken stopped = run_whole(*engine, request(3, sampling), rows(3, 3), rows(4, 4));
  EXPECT_TRUE(stopped.codes.empty());
  EXPECT_EQ(stopped.last.finish_reason, OMNI_FINISH_STOP);
}

TEST_F(TalkerTest, SpeakersDiffer) {
  const auto engine = tiny_.open(kModel);
  std::map<std::string, std::vector<int64_t>> codes;
  for (const std::string speaker : {"", "Chelsie", "Ethan"}) {
    nlohmann::json params = request(5, greedy(20));
    if (!speaker.empty()) params["speaker"] = speaker;
    codes[speaker] = run_whole(*engine, params, rows(5, 3), rows(4, 4)).codes;
  }
  EXPECT_EQ(codes[""], codes["Chelsie"]);
  EXPECT_NE(codes["Ethan"], codes["Chelsie"]);
}

TEST_F(TalkerTest, AReplyOfOneTokenHasNothingToSay) {
  const auto engine = tiny_.open(kModel);
  for (const bool from_upstream : {false, true}) {
    nlohmann::json params = request(3, sampled(10));
    if (from_upstream) {
      params.erase("seed");
      params["rng_from_upstream"] = true;
    }
    engine->admit(1, params);
    engine->feed(1, input({{"prompt_rows", rows(3, 1)}}, false));
    std::vector<NamedTensor> last;
    if (from_upstream) last.push_back({"rng_state", Rng(7).state()});
    engine->feed(1, input(last, true));
    Spoken spoken;
    spoken.add(engine->step({1})[0]);
    EXPECT_EQ(spoken.last.state, OMNI_SEQUENCE_DONE);
    EXPECT_TRUE(spoken.codes.empty());
    EXPECT_TRUE(at::equal(spoken.rng_state, Rng(7).state()));
    engine->release(1);
  }
}

TEST_F(TalkerTest, ASampledReplyWaitsForTheGenerator) {
  const auto engine = tiny_.open(kModel);
  const Spoken want = run_whole(*engine, request(3, sampled(12)), rows(3, 1), rows(4, 2));
  nlohmann::json params = request(3, sampled(12));
  params.erase("seed");
  params["rng_from_upstream"] = true;
  engine->admit(1, params);
  engine->feed(1, input({{"prompt_rows", rows(3, 1)}, {"reply_rows", rows(4, 2)}}, false));
  EXPECT_EQ(engine->step({1})[0].state, OMNI_SEQUENCE_WAITING);
  expect_error([&] { engine->feed(1, input({}, true)); }, OMNI_FAILED_PRECONDITION, {"\"rng_state\""});
  engine->feed(1, input({{"rng_state", Rng(7).state()}}, true));
  Spoken spoken;
  run(*engine, 1, spoken);
  EXPECT_EQ(spoken.codes, want.codes);
  EXPECT_TRUE(at::equal(spoken.rng_state, want.rng_state));
}

TEST_F(TalkerTest, AGreedyReplyPassesTheGeneratorOnWhenItComes) {
  const auto engine = tiny_.open(kModel);
  nlohmann::json params = request(3, greedy(2));
  params.erase("seed");
  params["rng_from_upstream"] = true;
  engine->admit(1, params);
  engine->feed(1, input({{"prompt_rows", rows(3, 1)}, {"reply_rows", rows(4, 2)}}, false));
  Spoken spoken;
  run(*engine, 1, spoken);
  EXPECT_EQ(spoken.codes.size(), 2U);  // all is said, but the generator is still to come
  EXPECT_EQ(spoken.last.state, OMNI_SEQUENCE_WAITING);
  engine->feed(1, input({{"rng_state", Rng(9).state()}}, true));
  run(*engine, 1, spoken);
  EXPECT_EQ(spoken.last.state, OMNI_SEQUENCE_DONE);
  EXPECT_EQ(spoken.last.finish_reason, OMNI_FINISH_LENGTH);
  EXPECT_EQ(spoken.codes.size(), 2U);
  EXPECT_TRUE(at::equal(spoken.rng_state, Rng(9).state()));
}

TEST_F(TalkerTest, ABatchSaysWhatEachSaysAlone) {
  for (const char* dtype : {"float32", "bfloat16"}) {
    SCOPED_TRACE(dtype);
    const auto engine = tiny_.open(kModel, dtype);
    constexpr uint64_t kSequences = 16;
    std::map<uint64_t, Spoken> batched;
    std::vector<uint64_t> running;
    const auto params_of = [](uint64_t i) {
      const auto n = static_cast<int64_t>(i);
      nlohmann::json params = request(1 + 3 * n % 20, i % 4 == 0 ? greedy(4 + n) : sampled(30 + n));
      params["seed"] = i;
      return params;
    };
    const auto reply_rows = [](uint64_t i) { return 1 + static_cast<int64_t>(i) * 5 % 9; };
    for (uint64_t i = 0; i < kSequences; ++i) {
      engine->admit(i, params_of(i));
      const int64_t prompt = params_of(i)["prompt_tokens"];
      engine->feed(i, input({{"prompt_rows", rows(prompt, 10 + i)}}, false));
      running.push_back(i);
    }
    // Rows come one by one, at another pace for each.
    for (uint64_t round = 0; !running.empty(); ++round) {
      for (const uint64_t i : running) {
        const auto row = static_cast<int64_t>(round / (1 + i % 3));
        if (round % (1 + i % 3) != 0 || row > reply_rows(i)) continue;
        const at::Tensor all = rows(reply_rows(i), 50 + i);
        if (row == reply_rows(i)) {
          engine->feed(i, input({}, true));
        } else {
          engine->feed(i, input({{"reply_rows", all.narrow(0, row, 1)}}, false));
        }
      }
      std::vector<uint64_t> left;
      for (const SequenceResult& result : engine->step(running)) {
        ASSERT_NE(result.state, OMNI_SEQUENCE_FAILED) << result.message;
        batched[result.sequence].add(result);
        if (result.state == OMNI_SEQUENCE_DONE) {
          engine->release(result.sequence);
        } else {
          left.insert(left.begin(), result.sequence);
        }
      }
      running = left;
    }
    for (uint64_t i = 0; i < kSequences; ++i) {
      SCOPED_TRACE(i);
      const int64_t prompt = params_of(i)["prompt_tokens"];
      const Spoken alone =
          run_whole(*engine, params_of(i), rows(prompt, 10 + i), rows(reply_rows(i), 50 + i));
      EXPECT_EQ(batched[i].codes, alone.codes);
      EXPECT_EQ(batched[i].last.finish_reason, alone.last.finish_reason);
      EXPECT_TRUE(at::equal(batched[i].rng_state, alone.rng_state));
    }
  }
}

TEST_F(TalkerTest, CanBeReleasedInEveryState) {
  const auto engine = tiny_.open(kModel);
  for (int state = 0; state < 5; ++state) {
    SCOPED_TRACE(state);
    engine->admit(1, request(3, greedy(4)));
    if (state >= 1) engine->feed(1, input({{"prompt_rows", rows(2, 1)}}, false));
    if (state >= 2) engine->feed(1, input({{"prompt_rows", rows(1, 1)}, {"reply_rows", rows(1, 2)}}, false));
    if (state >= 3) {
      EXPECT_EQ(engine->step({1})[0].state, OMNI_SEQUENCE_WAITING);
    }
    if (state >= 4) engine->feed(1, input({}, true));
    if (state >= 4) engine->step({1});
    engine->release(1);
    expect_error([&] { engine->step({1}); }, OMNI_NOT_FOUND, {"no sequence 1"});
  }
}

TEST_F(TalkerTest, InputAfterTheEndIsIgnored) {
  const auto engine = tiny_.open(kModel);
  engine->admit(1, request(3, greedy(1)));
  engine->feed(1, input({{"prompt_rows", rows(3, 1)}, {"reply_rows", rows(1, 2)}}, false));
  EXPECT_EQ(engine->step({1})[0].state, OMNI_SEQUENCE_DONE);
  engine->feed(1, input({{"reply_rows", rows(1, 2)}}, true));  // the thinker goes on
  EXPECT_EQ(engine->step({1})[0].state, OMNI_SEQUENCE_DONE);
}

TEST_F(TalkerTest, RefusesBadParams) {
  const auto engine = tiny_.open(kModel);
  struct Case {
    const char* name;
    const char* patch;
    std::vector<std::string> parts;
  };
  const std::vector<Case> cases = {
      {"no prompt", R"({"prompt_tokens": null})", {"\"prompt_tokens\"", "missing"}},
      {"no tokens", R"({"prompt_tokens": 0})", {"\"prompt_tokens\"", "> 0"}},
      {"too long", R"({"prompt_tokens": 79})", {"79", "80 positions", "max_position_embeddings"}},
      {"speaker", R"({"speaker": "Nobody"})", {"\"Nobody\"", "Ethan, Chelsie"}},
      {"unknown key", R"({"emit_rows": true})", {"unknown key \"emit_rows\"", "speaker"}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    nlohmann::json params = request(3, greedy(4));
    params.merge_patch(nlohmann::json::parse(c.patch));
    EXPECT_ANY_THROW(engine->admit(9, params));
    try {
      engine->admit(9, params);
    } catch (const Error& error) {
      for (const std::string& part : c.parts) {
        EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
      }
    }
    expect_error([&] { engine->release(9); }, OMNI_NOT_FOUND, {"no sequence 9"});
  }
}

TEST_F(TalkerTest, RefusesRowsThatDoNotFit) {
  const auto engine = tiny_.open(kModel);
  engine->admit(1, request(3, greedy(4)));
  struct Case {
    const char* name;
    EngineInput input;
    std::vector<std::string> parts;
  };
  const std::vector<Case> cases = {
      {"name", input({{"rows", rows(1, 1)}}, false), {"\"rows\"", "\"prompt_rows\"", "\"reply_rows\""}},
      {"width",
       input({{"reply_rows", at::zeros({1, 23})}}, false),
       {"\"reply_rows\"", "[rows, 24]", "[1, 23]"}},
      {"dims", input({{"reply_rows", at::zeros({24})}}, false), {"\"reply_rows\"", "[24]"}},
      {"dtype", input({{"reply_rows", at::zeros({1, 24}, at::kLong)}}, false), {"\"reply_rows\"", "floats"}},
      {"too many", input({{"prompt_rows", rows(4, 1)}}, false), {"\"prompt_rows\"", "3 rows", "found 4"}},
      {"too few", input({{"prompt_rows", rows(2, 1)}}, true), {"\"prompt_rows\"", "3 rows", "found 2"}},
      {"tokens", {{1}, {}, false}, {"tokens"}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    expect_error([&] { engine->feed(1, c.input); }, OMNI_INVALID_ARGUMENT, c.parts);
  }
  // Nothing of the refused input was taken.
  engine->feed(1, input({{"prompt_rows", rows(3, 1)}, {"reply_rows", rows(1, 2)}}, false));
  EXPECT_EQ(engine->step({1})[0].tokens.size(), 1U);
}

TEST_F(TalkerTest, RowsOfAnotherDTypeAreConverted) {
  const auto engine = tiny_.open(kModel, "bfloat16");
  const Spoken wide = run_whole(*engine, request(3, greedy(5)), rows(3, 1).to(at::kBFloat16).to(at::kFloat),
                                rows(9, 2).to(at::kBFloat16).to(at::kFloat));
  const Spoken narrow =
      run_whole(*engine, request(3, greedy(5)), rows(3, 1).to(at::kBFloat16), rows(9, 2).to(at::kBFloat16));
  EXPECT_EQ(wide.codes, narrow.codes);
}

TEST_F(TalkerTest, OpensNothingThatContradictsItself) {
  struct Case {
    const char* name;
    const char* patch;
    std::vector<std::string> parts;
  };
  const std::vector<Case> cases = {
      {"width",
       R"({"talker_config": {"embedding_size": 30}})",
       {"talker_config", "\"embedding_size\"", "hidden_size = 24"}},
      {"codec id",
       R"({"talker_config": {"tts_codec_mask_token_id": 45}})",
       {"talker_config", "\"tts_codec_mask_token_id\"", "talker's vocab_size = 45"}},
      {"text id",
       R"({"talker_config": {"tts_text_pad_token_id": 61}})",
       {"talker_config", "\"tts_text_pad_token_id\"", "thinker's vocab_size = 61"}},
      {"ids that are left out",
       R"({"talker_config": {"tts_text_end_token_id": null}})",
       {"\"tts_text_end_token_id\"", "151861"}},
      {"heads",
       R"({"talker_config": {"num_key_value_heads": 2}})",
       {"talker_config", "\"num_key_value_heads\""}},
      {"speaker",
       R"({"thinker_config": {"text_config": {"vocab_size": 9}}, "talker_config": {
          "tts_text_end_token_id": 1, "tts_text_pad_token_id": 1}})",
       {"spk_dict.pt", "\"Chelsie\"", "bos_token 9"}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    TinyOmni tiny;
    tiny.config.merge_patch(nlohmann::json::parse(c.patch));
    expect_error([&] { tiny.open(kModel); }, OMNI_INVALID_ARGUMENT, c.parts);
  }
}

TEST_F(TalkerTest, NamesMissingTensors) {
  tiny_.left_out = {"talker.codec_head.weight", "talker.model.layers.1.mlp.up_proj.weight"};
  expect_error([&] { tiny_.open(kModel); }, OMNI_INVALID_ARGUMENT,
               {"talker.codec_head.weight", "talker.model.layers.1.mlp.up_proj.weight", "[33, 20]"});
  TinyOmni no_text;
  no_text.left_out = {"thinker.model.embed_tokens.weight"};
  expect_error([&] { no_text.open(kModel); }, OMNI_INVALID_ARGUMENT,
               {"thinker.model.embed_tokens.weight", "missing"});
}

}  // namespace
}  // namespace omni
