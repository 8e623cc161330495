// Growth, limits and memory of a sequence's keys and values.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "runtime/kv_cache.h"
#include "tests/expect_error.h"

namespace omni {
namespace {

const KvCacheShape kShape = {2, 3, 4, at::kFloat};

// Writes one recognisable position into every layer.
void write(KvCache& cache, int64_t position) {
  for (int64_t layer = 0; layer < kShape.layers; ++layer) {
    cache.keys(layer).select(1, position).fill_(static_cast<double>(100 * layer + position));
    cache.values(layer).select(1, position).fill_(-static_cast<double>(100 * layer + position));
  }
}

TEST(KvCache, KeepsWhatItHoldsWhileItGrows) {
  KvCache cache(kShape, 1000);
  for (int64_t position = 0; position < 300; ++position) {
    cache.reserve(position + 1);
    write(cache, position);
    cache.advance(1);
  }
  EXPECT_EQ(cache.length(), 300);
  for (int64_t layer = 0; layer < kShape.layers; ++layer) {
    ASSERT_GE(cache.room(layer), 300);
    for (int64_t position = 0; position < 300; ++position) {
      const double want = static_cast<double>(100 * layer + position);
      ASSERT_TRUE((cache.keys(layer).select(1, position) == want).all().item<bool>());
      ASSERT_TRUE((cache.values(layer).select(1, position) == -want).all().item<bool>());
    }
  }
}

TEST(KvCache, GrowsGeometrically) {
  KvCache cache(kShape, 1 << 20);
  int growths = 0;
  for (int64_t position = 0; position < 5000; ++position) {
    const int64_t before = cache.room(0);
    cache.reserve(position + 1);
    growths += cache.room(0) != before ? 1 : 0;
    cache.advance(1);
  }
  EXPECT_LE(growths, 8);
  EXPECT_LE(cache.room(0), 2 * 5000);
}

TEST(KvCache, HoldsNothingUntilItIsUsedAndNoMoreThanTheLimit) {
  KvCache cache(kShape, 70);
  EXPECT_EQ(cache.bytes(), 0);
  cache.reserve(65);
  EXPECT_EQ(cache.room(0), 65);
  cache.reserve(66);
  EXPECT_EQ(cache.room(0), 70);
  EXPECT_EQ(cache.bytes(), 2 * 2 * 3 * 70 * 4 * 4);
  expect_error([&] { cache.reserve(71); }, OMNI_INVALID_ARGUMENT, {"71 positions do not fit", "at most 70"});
  EXPECT_EQ(cache.room(0), 70);
}

}  // namespace
}  // namespace omni
