// Choosing the next token from logits, in the order and with the arithmetic of transformers' generate().
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

#include <cstdint>
#include <vector>

#include "runtime/config.h"
#include "runtime/rng.h"

namespace omni {

// How a sequence chooses its tokens. Keys and meanings are vLLM's; the numbers are transformers'.
struct SamplingParams {
  double temperature = 0;  // 0: greedy
  double top_p = 1;        // 1: off
  int64_t top_k = -1;      // -1 or 0: off
  int64_t max_tokens = 0;  // > 0 after parse()
  int64_t min_tokens = 0;  // before so many, no stop token is chosen
  double repetition_penalty = 1;
  std::vector<int64_t> stop_token_ids;
  std::vector<int64_t> suppress_tokens;  // never chosen

  // {"temperature","top_p","top_k","max_tokens","min_tokens","repetition_penalty","stop_token_ids","suppress_tokens"};
  // max_tokens is required. Throws INVALID_ARGUMENT for unknown keys and values out of range.
  static SamplingParams parse(const Config& config);

  bool greedy() const { return temperature == 0; }
  bool stops_at(int64_t token) const;
};

// The token that follows. logits: float32 [V] on any device, not changed. history: the ids that the repetition
// penalty looks at, prompt and generated; ids of V and above are ignored. generated: how many tokens came before this
// one. Order: repetition penalty, min_tokens, suppress, temperature, top_k, top_p, softmax, one draw of multinomial.
// Greedy: repetition penalty, min_tokens, suppress, argmax, and no draw. Draws happen on the CPU whatever the device, so that a seed means the same everywhere. Throws INTERNAL if the
// logits contain a NaN or leave no token to choose. [torch thread]
int64_t sample(const at::Tensor& logits, const SamplingParams& params, c10::ArrayRef<int64_t> history,
               int64_t generated, Rng& rng);

// The parts of sample() that have a faster form here than in the reference, with the same result to the last bit.

// top_p over scores [1, V] of which few may be above -infinity (top_k came before), and its plain twin.
at::Tensor keep_top_p(const at::Tensor& scores, double p);
at::Tensor keep_top_p_plain(const at::Tensor& scores, double p);

// What at::multinomial(probabilities, 1, false, rng.generator()) draws from [1, V], leaving the same state behind; takes
// the logarithms of possible tokens only.
int64_t draw(const at::Tensor& probabilities, Rng& rng);

}  // namespace omni
