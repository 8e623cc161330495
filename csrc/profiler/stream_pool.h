// The memory in which records lie: chunks of one size, of which only so many exist.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace omni::stream {

constexpr size_t kChunkBytes = size_t{256} << 10;
constexpr size_t kPoolChunks = 160;  // 40 MB

struct Chunk {
  std::atomic<uint32_t> used{0};  // published by the log's thread
  alignas(8) std::array<std::byte, kChunkBytes> bytes;
};

// Goes back to the pool with its last reference. One thread writes into a chunk, and only while no reader has it, or
// beyond what it has published.
using ChunkRef = std::shared_ptr<Chunk>;

// One per process, never destroyed. Any thread.
class Pool {
 public:
  static Pool& get();

  // An empty chunk; null if all that may exist are in use.
  ChunkRef take();
  // An empty chunk in any case: for what a session holds at its end, which must not be lost.
  ChunkRef take_extra();
  // Frees the chunks that are not in use.
  void trim();

 private:
  Pool() = default;
  ChunkRef reference(std::unique_ptr<Chunk> chunk);
  void give_back(Chunk* chunk);

  std::mutex mutex_;  // guards what follows
  std::vector<std::unique_ptr<Chunk>> free_;
  size_t chunks_ = 0;  // existing, wherever they are
};

}  // namespace omni::stream
