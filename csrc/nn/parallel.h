// Sharing a loop out to the threads of torch's pool, piece by piece.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace omni {

// Calls body(begin, end) for pieces that together are [0, total), on any of the threads, in no order. Threads take the
// next piece when they are done with one, so that a core which is slowed down by another process does less instead of
// holding up the rest. smallest: what is not worth sharing further. What body computes must not depend on where the
// pieces are cut.
template <class Body>
void parallel_pieces(int64_t total, int64_t smallest, const Body& body) {
  constexpr int64_t kPiecesPerThread = 8;
  const int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  const int64_t piece = std::max(smallest, total / (threads * kPiecesPerThread));
  const int64_t pieces = (total + piece - 1) / piece;
  if (threads == 1 || pieces <= 1) {
    if (total > 0) body(static_cast<int64_t>(0), total);
    return;
  }
  std::atomic<int64_t> next{0};
  at::parallel_for(0, std::min(threads, pieces), 1, [&](int64_t, int64_t) {
    for (int64_t i = next.fetch_add(1); i < pieces; i = next.fetch_add(1)) {
      body(i * piece, std::min(total, (i + 1) * piece));
    }
  });
}

}  // namespace omni
