// Handing chunks out and taking them back.
#include "profiler/stream_pool.h"

#include <utility>

namespace omni::stream {

Pool& Pool::get() {
  static Pool* const pool = new Pool;  // never destroyed: threads may outlive anything
  return *pool;
}

ChunkRef Pool::take() {
  std::unique_ptr<Chunk> chunk;
  {
    const std::lock_guard lock(mutex_);
    if (!free_.empty()) {
      chunk = std::move(free_.back());  // the one that was used last is in the caches
      free_.pop_back();
    } else if (chunks_ >= kPoolChunks) {
      return nullptr;
    } else {
      ++chunks_;
    }
  }
  if (!chunk) chunk = std::make_unique_for_overwrite<Chunk>();
  return reference(std::move(chunk));
}

ChunkRef Pool::take_extra() {
  if (ChunkRef chunk = take()) return chunk;
  {
    const std::lock_guard lock(mutex_);
    ++chunks_;
  }
  return reference(std::make_unique_for_overwrite<Chunk>());
}

void Pool::trim() {
  std::vector<std::unique_ptr<Chunk>> freed;  // outside of the lock
  const std::lock_guard lock(mutex_);
  chunks_ -= free_.size();
  freed.swap(free_);
}

ChunkRef Pool::reference(std::unique_ptr<Chunk> chunk) {
  chunk->used.store(0, std::memory_order_relaxed);
  return {chunk.release(), [](Chunk* last) { Pool::get().give_back(last); }};
}

void Pool::give_back(Chunk* chunk) {
  std::unique_ptr<Chunk> owned(chunk);
  const std::lock_guard lock(mutex_);
  if (chunks_ > kPoolChunks) {
    --chunks_;
    return;
  }
  free_.push_back(std::move(owned));
}

}  // namespace omni::stream
