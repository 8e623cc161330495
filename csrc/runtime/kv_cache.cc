// Growth of a sequence's keys and values.
#include "runtime/kv_cache.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <string>

#include "status.h"

namespace omni {
namespace {

constexpr int64_t kFirstRoom = 64;  // positions

}  // namespace

KvCache::KvCache(const KvCacheShape& shape, int64_t limit) : shape_(shape), limit_(limit) {
  const auto options = at::TensorOptions().dtype(shape.dtype).device(shape.device);
  layers_.assign(static_cast<size_t>(shape.layers),
                 at::empty({2, shape.kv_heads, 0, shape.head_dim}, options));
}

void KvCache::reserve(int64_t positions) {
  if (positions > limit_) {
    throw Error(OMNI_INVALID_ARGUMENT, "key-value cache: " + std::to_string(positions) +
                                           " positions do not fit, at most " + std::to_string(limit_) +
                                           " are allowed");
  }
  for (at::Tensor& layer : layers_) {
    const int64_t room = layer.size(2);
    if (room >= positions) continue;
    const int64_t wanted = std::max({positions, 2 * room, kFirstRoom});
    at::Tensor larger =
        at::empty({2, shape_.kv_heads, std::min(wanted, limit_), shape_.head_dim}, layer.options());
    if (length_ > 0) larger.narrow(2, 0, length_).copy_(layer.narrow(2, 0, length_));
    layer = std::move(larger);
  }
}

void KvCache::advance(int64_t positions) { length_ += positions; }

int64_t KvCache::bytes() const {
  int64_t total = 0;
  for (const at::Tensor& layer : layers_) total += static_cast<int64_t>(layer.nbytes());
  return total;
}

}  // namespace omni
