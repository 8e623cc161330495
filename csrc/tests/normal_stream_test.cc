// Noise that is drawn in pieces is the noise that is drawn at once.
#include "runtime/normal_stream.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace omni {
namespace {

// All values of a stream that is read in pieces of these sizes, ended as a tensor of that length ends.
at::Tensor in_pieces(uint64_t seed, const std::vector<int64_t>& sizes) {
  NormalStream stream{Rng(seed)};
  std::vector<at::Tensor> parts{at::empty({0})};
  for (const int64_t size : sizes) parts.push_back(stream.next(size));
  at::Tensor all = at::cat(parts);
  const at::Tensor ending = stream.ending();
  EXPECT_LE(ending.numel(), std::min<int64_t>(16, all.numel()));
  all.narrow(0, all.numel() - ending.numel(), ending.numel()).copy_(ending);
  return all;
}

at::Tensor at_once(uint64_t seed, int64_t total) {
  Rng rng(seed);
  return at::randn({total}, rng.generator(), at::TensorOptions().dtype(at::kFloat));
}

TEST(NormalStream, PiecesAreTheWholeBitForBit) {
  const c10::InferenceMode inference;
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    std::vector<int64_t> sizes;
    int64_t total = 0;
    const int64_t pieces = 1 + static_cast<int64_t>(random() % 6);
    for (int64_t i = 0; i < pieces; ++i) {
      sizes.push_back(static_cast<int64_t>(random() % (round % 3 == 0 ? 9 : 200)));
      total += sizes.back();
    }
    EXPECT_TRUE(at::equal(in_pieces(round, sizes), at_once(round, total)))
        << "round " << round << ", " << total;
  }
}

TEST(NormalStream, WholeGroupsNeedNoEnding) {
  const c10::InferenceMode inference;
  NormalStream stream{Rng(3)};
  const at::Tensor first = stream.next(80);
  const at::Tensor second = stream.next(160);
  EXPECT_EQ(stream.ending().numel(), 0);
  EXPECT_TRUE(at::equal(at::cat({first, second}), at_once(3, 240)));
  // What comes first is the same for every length.
  EXPECT_TRUE(at::equal(first, at_once(3, 80 * 1000).narrow(0, 0, 80)));
}

TEST(NormalStream, NothingIsNothing) {
  const c10::InferenceMode inference;
  NormalStream stream{Rng(3)};
  EXPECT_EQ(stream.next(0).numel(), 0);
  EXPECT_EQ(stream.ending().numel(), 0);
}

}  // namespace
}  // namespace omni
