// Where speech is cut into chunks that are computed while the talker still writes.
//
// Of the diffusion transformer's layers some see one block of frames back, some one block ahead. In one evaluation a
// block so depends on as many blocks to either side as there are such layers; a solution of E evaluations reaches E
// times as far. What lies before a chunk costs nothing: the keys and values that its first block looks back at are kept
// from the chunk before, for every evaluation, so that the past is seen whole. What lies ahead has to be computed with
// the chunk and once more with the next one: it is bounded, by default to what one evaluation reaches. A model without
// layers that look ahead needs none, and its chunks are what the whole would give.
//
// The vocoder sees a fixed number of frames to either side; a chunk's last frames become sound when those are there.
//
// Chunks are cut by the number of codes alone, never by when they came: a request sounds the same alone and among others.
#pragma once

#include <cstdint>
#include <optional>

#include "models/qwen2_5_omni_dit.h"

namespace omni::qwen2_5_omni {

// In codes; what is not given follows from the model.
struct ChunkSizes {
  std::optional<int64_t> initial;        // the first chunk
  std::optional<int64_t> usual;          // the largest of the others
  std::optional<int64_t> right_context;  // seen after a chunk
};

// Frames [begin, end), computed in sight of those before `seen`.
struct Chunk {
  int64_t begin;
  int64_t end;
  int64_t seen;
  bool last;
};

class ChunkPlan {
 public:
  // One chunk of everything, when all codes are there.
  explicit ChunkPlan(const DitConfig& config);
  // Chunks of whole blocks: sizes are rounded up.
  ChunkPlan(const DitConfig& config, int64_t vocoder_context, const ChunkSizes& sizes);

  // The chunk that follows frame `begin`, if there are codes enough; ended: there will be no more than these.
  std::optional<Chunk> next(int64_t begin, int64_t codes, bool ended) const;
  // How many codes there must be for that chunk; kNeverEnough if all must be there.
  int64_t codes_for(int64_t begin) const;
  static constexpr int64_t kNeverEnough = INT64_MAX;

  // In frames, for tests and for engine info.
  int64_t initial() const { return initial_ * block_; }
  int64_t usual() const { return usual_ * block_; }
  int64_t right_context() const { return right_context_ * block_; }

 private:
  int64_t end_of(int64_t begin) const;

  int64_t block_;
  int64_t repeats_;
  bool whole_;
  int64_t vocoder_context_ = 0;  // frames
  int64_t initial_ = 0;          // blocks
  int64_t usual_ = 0;
  int64_t right_context_ = 0;
};

}  // namespace omni::qwen2_5_omni
