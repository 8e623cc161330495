// Where a stream is cut: arithmetic alone.
#include "models/qwen2_5_omni_chunks.h"

#include <gtest/gtest.h>

#include <vector>

namespace omni::qwen2_5_omni {
namespace {

// A transformer of that block size, with layers that look back and ahead.
DitConfig network(int64_t block, int64_t repeats, int64_t back, int64_t ahead) {
  DitConfig config{};
  config.repeats = repeats;
  for (int64_t i = 0; i < back + ahead + 1; ++i)
    config.windows.push_back({block, i < back, i >= back && i < back + ahead});
  return config;
}

// The chunks that a plan makes of so many codes, which must be the same however they come.
std::vector<Chunk> cut(const ChunkPlan& plan, int64_t codes) {
  std::vector<Chunk> chunks;
  int64_t begin = 0;
  for (int64_t come = 0; come <= codes; ++come) {
    while (const auto chunk = plan.next(begin, come, false)) {
      EXPECT_EQ(plan.codes_for(begin), come);
      chunks.push_back(*chunk);
      begin = chunk->end;
    }
    EXPECT_GT(plan.codes_for(begin), come);
  }
  int64_t again = 0;
  for (const Chunk& chunk : chunks) {  // all at once
    const auto same = plan.next(again, codes, true);
    EXPECT_TRUE(same.has_value() && same->end == chunk.end && same->seen == chunk.seen && !same->last);
    again = chunk.end;
  }
  chunks.push_back(plan.next(begin, codes, true).value());
  return chunks;
}

TEST(ChunkPlan, DefaultsFollowFromTheNetwork) {
  // The released sizes: blocks of 24 frames, one layer that looks ahead; a vocoder that sees 38 frames.
  const ChunkPlan plan(network(24, 2, 2, 1), 38, {});
  EXPECT_EQ(plan.initial(), 48);  // 10 frames of it sound at once
  EXPECT_EQ(plan.right_context(), 24);
  EXPECT_EQ(plan.usual(), 96);
  EXPECT_EQ(plan.codes_for(0), (48 + 24) / 2);
  // Each chunk is no longer than what sounds before it, and no shorter than a block.
  const std::vector<Chunk> chunks = cut(plan, 400);
  std::vector<int64_t> lengths;
  for (const Chunk& chunk : chunks) lengths.push_back(chunk.end - chunk.begin);
  EXPECT_EQ(lengths, (std::vector<int64_t>{48, 24, 24, 48, 96, 96, 96, 96, 96, 96, 80}));
  EXPECT_EQ(chunks.back().seen, 800);
  EXPECT_TRUE(chunks.back().last);
}

TEST(ChunkPlan, SizesAreWholeBlocks) {
  const ChunkSizes sizes{4, 25, 1};
  const ChunkPlan plan(network(24, 2, 1, 0), 10, sizes);
  EXPECT_EQ(plan.initial(), 24);
  EXPECT_EQ(plan.usual(), 72);
  EXPECT_EQ(plan.right_context(), 24);
  const ChunkPlan blind(network(24, 2, 1, 1), 10, {4, 25, 0});
  EXPECT_EQ(blind.right_context(), 0);
}

// Every frame is in one chunk, whatever the sizes; only the last has no whole blocks, and it is never empty.
TEST(ChunkPlan, ChunksCoverEverythingOnce) {
  for (const int64_t block : {1, 3, 5, 24}) {
    for (const int64_t repeats : {1, 2, 3}) {
      for (const ChunkSizes& sizes : std::vector<ChunkSizes>{{}, {1, 1, 0}, {7, 9, 3}, {30, 2, 40}}) {
        const ChunkPlan plan(network(block, repeats, 1, 1), 7, sizes);
        for (int64_t codes = 1; codes < 120; ++codes) {
          int64_t end = 0;
          for (const Chunk& chunk : cut(plan, codes)) {
            EXPECT_EQ(chunk.begin, end);
            EXPECT_LT(chunk.begin, chunk.end);
            EXPECT_LE(chunk.end, chunk.seen);
            EXPECT_EQ(chunk.begin % block, 0);
            EXPECT_LE(chunk.seen, codes * repeats);
            end = chunk.end;
          }
          EXPECT_EQ(end, codes * repeats);
        }
      }
    }
  }
}

TEST(ChunkPlan, TheWholeWaitsForTheEnd) {
  const ChunkPlan plan(network(24, 2, 2, 1));
  EXPECT_EQ(plan.codes_for(0), ChunkPlan::kNeverEnough);
  EXPECT_FALSE(plan.next(0, 1 << 30, false));
  const Chunk chunk = plan.next(0, 7, true).value();
  EXPECT_EQ(chunk.end, 14);
  EXPECT_EQ(chunk.seen, 14);
  EXPECT_TRUE(chunk.last);
}

}  // namespace
}  // namespace omni::qwen2_5_omni
