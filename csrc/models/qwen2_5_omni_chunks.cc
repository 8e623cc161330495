#include "models/qwen2_5_omni_chunks.h"

#include <algorithm>

namespace omni::qwen2_5_omni {
namespace {

// What is seen ahead is computed twice. Chunks this many times as long make that a quarter of the work.
constexpr int64_t kUsualPerContext = 4;

int64_t rounded_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit; }

}  // namespace

ChunkPlan::ChunkPlan(const DitConfig& config)
    : block_(config.block()), repeats_(config.repeats), whole_(true) {}

ChunkPlan::ChunkPlan(const DitConfig& config, int64_t vocoder_context, const ChunkSizes& sizes)
    : block_(config.block()), repeats_(config.repeats), whole_(false), vocoder_context_(vocoder_context) {
  const auto blocks = [this](int64_t codes) { return rounded_up(codes * repeats_, block_); };
  right_context_ = sizes.right_context ? blocks(*sizes.right_context) : config.reach_ahead();
  // The fewest blocks of which some frames become sound at once.
  initial_ = sizes.initial ? blocks(*sizes.initial) : vocoder_context / block_ + 1;
  usual_ = sizes.usual ? blocks(*sizes.usual) : kUsualPerContext * std::max<int64_t>(right_context_, 1);
}

int64_t ChunkPlan::end_of(int64_t begin) const {
  if (begin == 0) return initial_ * block_;
  // No longer than the sound made so far: who plays that has the next chunk before it ends, if the talker keeps pace.
  const int64_t sounding = (begin - vocoder_context_) / block_;
  return begin + std::clamp<int64_t>(sounding, 1, usual_) * block_;
}

int64_t ChunkPlan::codes_for(int64_t begin) const {
  if (whole_) return kNeverEnough;
  // One more code than the chunk's own shows that it is not the last: of a last chunk the noise may end otherwise.
  const int64_t end = end_of(begin);
  return rounded_up(std::max(end + right_context_ * block_, end + 1), repeats_);
}

std::optional<Chunk> ChunkPlan::next(int64_t begin, int64_t codes, bool ended) const {
  if (codes >= codes_for(begin)) {
    const int64_t end = end_of(begin);
    return Chunk{begin, end, end + right_context_ * block_, false};
  }
  if (!ended) return std::nullopt;
  const int64_t all = codes * repeats_;
  return Chunk{begin, all, all, true};
}

}  // namespace omni::qwen2_5_omni
