// The sampler against what transformers' generate() chooses (testdata/sampler_golden.py).
#include "runtime/sampler.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <tuple>

#include "expect_error.h"

namespace omni {
namespace {

SamplingParams parse(const nlohmann::json& params) {
  return SamplingParams::parse(Config(&params, "sampling"));
}

TEST(Sampler, ChoosesWhatTheReferenceChooses) {
  const nlohmann::json cases =
      nlohmann::json::parse(std::ifstream(OMNI_SOURCE_DIR "/csrc/tests/testdata/sampler_golden.json"));
  ASSERT_GE(cases.size(), 15u);
  for (const auto& test : cases) {
    SCOPED_TRACE(test.at("name").get<std::string>());
    const SamplingParams params = parse(test.at("params"));
    Rng logits_rng(test.at("logits_seed").get<uint64_t>());
    Rng rng(test.at("seed").get<uint64_t>());
    auto history = test.at("prompt").get<std::vector<int64_t>>();
    std::vector<int64_t> tokens;
    for (int64_t i = 0; i < params.max_tokens; ++i) {
      at::Tensor logits = at::randn({test.at("vocabulary").get<int64_t>()}, logits_rng.generator()) * 3;
      if (test.at("round").get<bool>()) logits = logits.round();
      const at::Tensor before = logits.clone();
      tokens.push_back(sample(logits, params, history, i, rng));
      history.push_back(tokens.back());
      ASSERT_TRUE(logits.equal(before)) << "the caller's logits were changed";
    }
    EXPECT_EQ(tokens, test.at("tokens").get<std::vector<int64_t>>());
    std::vector<float> after{at::randn({1}, rng.generator()).item<float>()};
    const at::Tensor uniform = at::rand({2}, rng.generator());
    after.push_back(uniform[0].item<float>());
    after.push_back(uniform[1].item<float>());
    EXPECT_EQ(after, test.at("after").get<std::vector<float>>())
        << "another number of draws than the reference";
  }
}

TEST(Sampler, RefusesLogitsThatLeaveNothingToChoose) {
  Rng rng(1);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const double temperature : {0.0, 1.0}) {
    const SamplingParams params =
        parse({{"temperature", temperature}, {"max_tokens", 1}, {"suppress_tokens", {0, 1}}});
    expect_error([&] { sample(at::zeros({2}), params, {}, 0, rng); }, OMNI_INTERNAL,
                 {"no token can be chosen", "-inf"});
    expect_error([&] { sample(at::tensor({0.f, 1.f, nan}), params, {}, 0, rng); }, OMNI_INTERNAL, {"nan"});
  }
}

// Random scores of many sizes, some of them equal, of which the k highest are possible.
at::Tensor scores_with(int64_t vocabulary, int64_t possible, bool ties, Rng& rng) {
  at::Tensor scores = at::randn({1, vocabulary}, rng.generator()) * 4;
  if (ties) scores = scores.round();
  const at::Tensor lowest = std::get<0>(scores.topk(possible)).slice(1, -1);
  return scores.masked_fill(scores < lowest, -std::numeric_limits<float>::infinity());
}

TEST(Sampler, TopPOfFewTokensEqualsThePlainForm) {
  Rng rng(5);
  for (const int64_t vocabulary : {1, 63, 64, 65, 500, 8448, 20011}) {
    for (const int64_t possible : {int64_t{1}, int64_t{2}, int64_t{40}, vocabulary}) {
      for (const bool ties : {false, true}) {
        const at::Tensor scores = scores_with(vocabulary, std::min(possible, vocabulary), ties, rng);
        for (const double p : {0.0, 1e-9, 0.3, 0.8, 0.95, 0.999999}) {
          EXPECT_TRUE(keep_top_p(scores, p).equal(keep_top_p_plain(scores, p)))
              << vocabulary << " tokens, " << possible << " possible, ties " << ties << ", p " << p;
        }
      }
    }
  }
}

TEST(Sampler, DrawsWhatMultinomialDraws) {
  Rng scores_rng(6);
  Rng rng(7);
  Rng reference(7);
  for (const int64_t vocabulary : {1, 2, 63, 1000, 8448}) {
    for (int round = 0; round < 40; ++round) {
      const int64_t possible = round % 2 == 0 ? vocabulary : std::min<int64_t>(vocabulary, 9);
      const at::Tensor probabilities =
          scores_with(vocabulary, possible, round % 3 == 0, scores_rng).softmax(-1);
      const int64_t expected =
          at::multinomial(probabilities, 1, false, reference.generator()).item<int64_t>();
      ASSERT_EQ(draw(probabilities, rng), expected) << vocabulary << " tokens, round " << round;
    }
  }
  EXPECT_TRUE(rng.state().equal(reference.state()));
  expect_error([&] { draw(at::zeros({1, 3}), rng); }, OMNI_INTERNAL, {"no token can be drawn"});
}

TEST(SamplingParams, ReadsAllKeys) {
  const SamplingParams params = parse({{"temperature", 0.5},
                                       {"top_p", 0.25},
                                       {"top_k", 9},
                                       {"max_tokens", 11},
                                       {"min_tokens", 3},
                                       {"repetition_penalty", 1.5},
                                       {"stop_token_ids", {4, 5}},
                                       {"suppress_tokens", {6}}});
  EXPECT_EQ(params.temperature, 0.5);
  EXPECT_EQ(params.top_p, 0.25);
  EXPECT_EQ(params.top_k, 9);
  EXPECT_EQ(params.max_tokens, 11);
  EXPECT_EQ(params.min_tokens, 3);
  EXPECT_EQ(params.repetition_penalty, 1.5);
  EXPECT_EQ(params.suppress_tokens, std::vector<int64_t>{6});
  EXPECT_FALSE(params.greedy());
  EXPECT_TRUE(params.stops_at(5));
  EXPECT_FALSE(params.stops_at(6));
  EXPECT_TRUE(parse({{"max_tokens", 1}}).greedy());
}

TEST(SamplingParams, RefusesValuesOutOfRange) {
  const struct {
    nlohmann::json params;
    std::string part;
  } cases[] = {
      {{{"temperature", 1}}, "\"max_tokens\" is missing"},
      {{{"max_tokens", 0}}, "\"max_tokens\": expected an integer > 0, found 0"},
      {{{"max_tokens", 1}, {"temperature", -0.1}}, "\"temperature\": expected a number >= 0, found -0.1"},
      {{{"max_tokens", 1}, {"temperature", "hot"}},
       "\"temperature\": expected a finite number, found \"hot\""},
      {{{"max_tokens", 1}, {"top_p", 1.1}}, "\"top_p\": expected a number from 0 to 1, found 1.1"},
      {{{"max_tokens", 1}, {"top_p", -1}}, "\"top_p\""},
      {{{"max_tokens", 1}, {"top_k", -2}}, "\"top_k\": expected an integer >= -1, found -2"},
      {{{"max_tokens", 1}, {"top_k", 1.5}}, "\"top_k\""},
      {{{"max_tokens", 3}, {"min_tokens", 4}},
       "\"min_tokens\": expected an integer from 0 to max_tokens, found 4"},
      {{{"max_tokens", 1}, {"repetition_penalty", 0}},
       "\"repetition_penalty\": expected a number > 0, found 0"},
      {{{"max_tokens", 1}, {"stop_token_ids", 3}},
       "\"stop_token_ids\": expected a list of integers, found 3"},
      {{{"max_tokens", 1}, {"seed", 3}}, "unknown key \"seed\""},
  };
  for (const auto& test : cases) {
    expect_error([&] { parse(test.params); }, OMNI_INVALID_ARGUMENT, {test.part, "sampling: "});
  }
}

}  // namespace
}  // namespace omni
