// The keys and values that one sequence has computed so far, for all layers.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace omni {

// What a cache of one network looks like.
struct KvCacheShape {
  int64_t layers;
  int64_t kv_heads;
  int64_t head_dim;
  at::ScalarType dtype;
  at::Device device = at::kCPU;
};

// Owned by one sequence, so its memory goes when the sequence goes. Room grows geometrically: n positions cost O(n)
// copying in all, and at most about half of the room is unused. [torch thread]
class KvCache {
 public:
  // limit: the most positions that it will ever hold.
  KvCache(const KvCacheShape& shape, int64_t limit);

  // Makes room for that many positions, kept ones included. Throws INVALID_ARGUMENT above the limit. What is kept stays
  // as it is, also when this throws; tensors of keys() and values() are replaced.
  void reserve(int64_t positions);

  // Counts positions whose keys and values were written behind the kept ones, in every layer.
  void advance(int64_t positions);

  int64_t length() const { return length_; }  // positions kept
  int64_t limit() const { return limit_; }
  int64_t bytes() const;

  // [kv_heads, room, head_dim] with room >= length(); rows from length() on are to be written.
  at::Tensor keys(int64_t layer) const { return layers_[static_cast<size_t>(layer)].select(0, 0); }
  at::Tensor values(int64_t layer) const { return layers_[static_cast<size_t>(layer)].select(0, 1); }
  // The same memory for kernels: keys, then values, each [kv_heads, room(layer), head_dim].
  const at::Tensor& both(int64_t layer) const { return layers_[static_cast<size_t>(layer)]; }
  int64_t room(int64_t layer) const { return layers_[static_cast<size_t>(layer)].size(2); }

 private:
  KvCacheShape shape_;
  int64_t limit_;
  int64_t length_ = 0;
  std::vector<at::Tensor> layers_;  // [2, kv_heads, room, head_dim]
};

}  // namespace omni
