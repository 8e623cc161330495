// Token selection. Scores keep the shape [1, V] that the reference uses, so that every op takes the same path.
#include "runtime/sampler.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/TransformationHelper.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <string>
#include <tuple>

#include "status.h"

namespace omni {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();

at::Tensor ids_tensor(const std::vector<int64_t>& ids) {
  return at::tensor(ids, at::TensorOptions().dtype(at::kLong));
}

// The ids that are in the vocabulary, each once: the penalty applies to a token however often it was seen.
std::vector<int64_t> distinct_below(c10::ArrayRef<int64_t> ids, int64_t vocabulary) {
  std::vector<int64_t> distinct;
  distinct.reserve(ids.size());
  for (const int64_t id : ids) {
    if (id >= 0 && id < vocabulary) distinct.push_back(id);
  }
  std::sort(distinct.begin(), distinct.end());
  distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
  return distinct;
}

at::Tensor apply_repetition_penalty(const at::Tensor& scores, double penalty,
                                    c10::ArrayRef<int64_t> history) {
  const std::vector<int64_t> seen = distinct_below(history, scores.size(1));
  if (penalty == 1.0 || seen.empty()) return scores;
  const at::Tensor index = ids_tensor(seen).unsqueeze(0);
  const at::Tensor score = scores.gather(1, index);
  return scores.scatter(1, index, at::where(score < 0, score * penalty, score / penalty));
}

at::Tensor suppress(const at::Tensor& scores, const std::vector<int64_t>& tokens) {
  const std::vector<int64_t> known = distinct_below(tokens, scores.size(1));
  return known.empty() ? scores : scores.index_fill(1, ids_tensor(known), kNever);
}

// Keeps the k highest scores, and all that equal the lowest of them.
at::Tensor keep_top_k(const at::Tensor& scores, int64_t k) {
  const at::Tensor top = std::get<0>(scores.topk(std::min(k, scores.size(1))));
  return scores.masked_fill(scores < top.slice(1, -1), kNever);
}

// Which of the scores sorted ascending [1, N] top_p drops: the least likely ones whose probabilities together stay
// within 1 - p, but never the most likely one.
at::Tensor dropped_by_top_p(const at::Tensor& sorted, double p) {
  at::Tensor drop = sorted.softmax(-1).cumsum(-1) <= (1 - p);
  drop.slice(1, -1).fill_(false);
  return drop;
}

// The indices of scores above -infinity, ascending.
std::vector<int64_t> possible_tokens(const at::Tensor& scores) {
  const float* values = scores.const_data_ptr<float>();
  std::vector<int64_t> possible;
  for (int64_t i = 0; i < scores.numel(); ++i) {
    if (values[i] > -std::numeric_limits<float>::infinity()) possible.push_back(i);
  }
  return possible;
}

// Without this, argmax would pick a NaN, and a suppressed token where all are suppressed.
void check_scores(const at::Tensor& scores) {
  const double highest = scores.max().item<double>();  // NaN wins a maximum
  if (std::isnan(highest) || highest == kNever) {
    throw Error(OMNI_INTERNAL, "no token can be chosen: the highest logit is " + std::to_string(highest));
  }
}

void check_range(const Config& config, bool good, const char* key, const char* expected) {
  if (good) return;
  config.fail("\"" + std::string(key) + "\": expected " + expected + ", found " +
              config.json().at(key).dump());
}

}  // namespace

at::Tensor keep_top_p_plain(const at::Tensor& scores, double p) {
  const auto [sorted, order] = scores.sort(-1, /*descending=*/false);
  const at::Tensor drop = dropped_by_top_p(sorted, p);
  return scores.masked_fill(drop.scatter(1, order, drop), kNever);
}

at::Tensor keep_top_p(const at::Tensor& scores, double p) {
  // Sums of probabilities depend on the lane of a vector register in which each one lies. Leaving out impossible tokens
  // by whole groups of lanes, of any register there is, leaves every sum as it was.
  constexpr int64_t kLanes = 64;
  const int64_t vocabulary = scores.size(1);
  const at::Tensor dense = scores.contiguous();
  const float* values = dense.const_data_ptr<float>();
  std::vector<int64_t> possible = possible_tokens(dense);
  const auto count = static_cast<int64_t>(possible.size());
  const int64_t length = vocabulary - (vocabulary - count) / kLanes * kLanes;
  if (length == vocabulary) return keep_top_p_plain(scores, p);
  std::sort(possible.begin(), possible.end(), [&](int64_t a, int64_t b) { return values[a] < values[b]; });
  at::Tensor sorted = at::full({1, length}, kNever, scores.options());
  for (int64_t i = 0; i < count; ++i) {
    sorted.mutable_data_ptr<float>()[length - count + i] = values[possible[static_cast<size_t>(i)]];
  }
  const at::Tensor drop = dropped_by_top_p(sorted, p);
  // Which of several equal scores come first is up to the reference's sort, which is not a stable one.
  const int64_t first_kept = drop.sum().item<int64_t>();
  const float* values_sorted = sorted.const_data_ptr<float>();
  if (first_kept > 0 && values_sorted[first_kept - 1] == values_sorted[first_kept])
    return keep_top_p_plain(scores, p);
  at::Tensor kept = dense.clone();
  for (int64_t i = 0; i < first_kept - (length - count); ++i) {
    kept.mutable_data_ptr<float>()[possible[static_cast<size_t>(i)]] =
        -std::numeric_limits<float>::infinity();
  }
  return kept;
}

int64_t draw(const at::Tensor& probabilities, Rng& rng) {
  const at::Tensor dense = probabilities.contiguous();
  const float* values = dense.const_data_ptr<float>();
  auto* generator = at::check_generator<at::CPUGeneratorImpl>(rng.generator());
  const std::lock_guard lock(generator->mutex_);
  int64_t token = -1;
  float highest = 0;
  for (int64_t i = 0; i < dense.numel(); ++i) {
    const uint64_t bits = generator->random64();  // every token takes its draw, possible or not
    if (!(values[i] > 0)) continue;
    const double uniform = at::transformation::uniform_real<double>(bits, 0.0, 1.0);
    const float score = values[i] / static_cast<float>(at::transformation::exponential<double>(uniform, 1.0));
    if (token < 0 || score > highest) {
      token = i;
      highest = score;
    }
  }
  if (token < 0) throw Error(OMNI_INTERNAL, "no token can be drawn: no probability is above 0");
  return token;
}

SamplingParams SamplingParams::parse(const Config& config) {
  config.reject_unknown({"temperature", "top_p", "top_k", "max_tokens", "min_tokens", "repetition_penalty",
                         "stop_token_ids", "suppress_tokens"});
  SamplingParams params;
  params.temperature = config.number("temperature", params.temperature);
  params.top_p = config.number("top_p", params.top_p);
  params.top_k = config.integer("top_k", params.top_k);
  params.max_tokens = config.positive("max_tokens");
  params.min_tokens = config.integer("min_tokens", params.min_tokens);
  params.repetition_penalty = config.number("repetition_penalty", params.repetition_penalty);
  params.stop_token_ids = config.integers("stop_token_ids", std::vector<int64_t>{});
  params.suppress_tokens = config.integers("suppress_tokens", std::vector<int64_t>{});
  check_range(config, params.temperature >= 0, "temperature", "a number >= 0");
  check_range(config, params.top_p >= 0 && params.top_p <= 1, "top_p", "a number from 0 to 1");
  check_range(config, params.top_k >= -1, "top_k", "an integer >= -1");
  check_range(config, params.min_tokens >= 0 && params.min_tokens <= params.max_tokens, "min_tokens",
              "an integer from 0 to max_tokens");
  check_range(config, params.repetition_penalty > 0, "repetition_penalty", "a number > 0");
  return params;
}

bool SamplingParams::stops_at(int64_t token) const {
  return std::find(stop_token_ids.begin(), stop_token_ids.end(), token) != stop_token_ids.end();
}

int64_t sample(const at::Tensor& logits, const SamplingParams& params, c10::ArrayRef<int64_t> history,
               int64_t generated, Rng& rng) {
  TORCH_CHECK(logits.dim() == 1 && logits.numel() > 0 && logits.scalar_type() == at::kFloat,
              "sample: expected float32 logits [V], found ", logits.scalar_type(), " ", logits.sizes());
  at::Tensor scores = logits.cpu().unsqueeze(0);
  scores = apply_repetition_penalty(scores, params.repetition_penalty, history);
  if (generated < params.min_tokens) scores = suppress(scores, params.stop_token_ids);
  scores = suppress(scores, params.suppress_tokens);
  check_scores(scores);
  if (params.greedy()) return scores.argmax(-1).item<int64_t>();
  if (params.temperature != 1.0) scores = scores / params.temperature;
  if (params.top_k > 0) scores = keep_top_k(scores, params.top_k);
  if (params.top_p < 1.0) scores = keep_top_p(scores, params.top_p);
  return draw(scores.softmax(-1), rng);
}

}  // namespace omni
