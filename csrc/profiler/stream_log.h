// Where ops are noted while they run: one append-only log per thread, in chunks from a pool of fixed size.
//
// The hot path takes no lock and allocates nothing. A thread writes into its own chunk and publishes how far with one
// store; a full chunk goes to the reader and is replaced from the pool, under a lock, once in thousands of events. When
// the pool is empty events are dropped and counted, never waited for. Room for the end of everything that has begun is
// kept in the chunk, so an op that is recorded is recorded whole.
//
// Sessions are numbered. A thread that is still inside a callback when its session ends, or comes back when another one
// has begun, finds the number changed and starts its log afresh; what it wrote late lies beyond what stop() has copied.
#pragma once

#include <ATen/record_function.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "profiler/stream_record.h"

namespace omni::stream {

constexpr size_t kChunkBytes = size_t{256} << 10;
constexpr size_t kPoolChunks = 160;  // 40 MB

struct Chunk {
  std::atomic<uint32_t> used{0};  // published by the log's thread
  alignas(8) std::array<std::byte, kChunkBytes> bytes;
};

// Records of one thread in their order, on the way to the reader.
struct Filled {
  uint32_t log = 0;    // unique in the process; thread numbers are reused by the system
  int64_t thread = 0;  // of the operating system
  std::unique_ptr<Chunk> chunk;
};

class ThreadLog;

// What one session's threads hand to its reader: records and names. Shared by the session's recorder and by every thread
// that has recorded in it, so it outlives whoever is late.
class Session {
 public:
  explicit Session(uint64_t generation) : generation_(generation) {}

  // The reader's side: waits for the next records; false when the session has been closed and all is read.
  bool next(Filled& out);

  // The name that id stands for. Any thread.
  std::string name(uint32_t id);

  uint64_t generation() const { return generation_; }
  // Events that found no room. Any thread; final after the session has been closed.
  int64_t dropped() const { return dropped_.load(std::memory_order_relaxed); }

 private:
  friend class Hub;
  friend class ThreadLog;

  void push(Filled filled);
  void close();
  // The id of a name and the session's own copy of it.
  uint32_t intern(const char* text, size_t size, const char** kept);

  const uint64_t generation_;
  std::atomic<int64_t> dropped_{0};

  std::mutex mutex_;  // guards what follows
  std::condition_variable filled_;
  bool closed_ = false;
  std::deque<Filled> queue_;

  std::mutex names_mutex_;  // guards what follows
  std::vector<const std::string*> names_;
  std::unordered_map<std::string, uint32_t> name_ids_;
};

// All logs and the pool. One per process, never destroyed: threads may outlive anything.
class Hub {
 public:
  static Hub& get();

  // Begins a session. Not while one is open.
  std::shared_ptr<Session> open();
  // Ends the session: nothing more gets in. What threads have published and not yet handed over is copied into its queue.
  void close();

  // Takes a chunk back into the pool.
  void recycle(std::unique_ptr<Chunk> chunk);
  // Frees the pool's chunks, unless a session is open and will want them.
  void trim();

  uint64_t generation() const {
    return generation_.load(std::memory_order_acquire);
  }  // 0: no session is open

 private:
  friend class ThreadLog;
  friend struct ThreadLogHolder;

  Hub() = default;
  void add(ThreadLog& log);
  void remove(ThreadLog& log);
  // Lets log take part in the open session, if there is one.
  bool join(ThreadLog& log);
  // Hands log's chunk to the reader and gives it another. False if the session is over, or if there is none: then the
  // event that needed it counts as dropped.
  bool exchange(ThreadLog& log);

  std::atomic<uint64_t> generation_{0};

  std::mutex mutex_;  // guards what follows, and each log's chunk_ and session_ pointers
  uint64_t last_generation_ = 0;
  uint32_t last_log_ = 0;
  std::shared_ptr<Session> session_;  // the open one
  std::vector<ThreadLog*> logs_;
  std::vector<std::unique_ptr<Chunk>> free_;
  size_t chunks_ = 0;  // existing, wherever they are
};

// The log of one thread. All functions are that thread's own.
class ThreadLog {
 public:
  // The calling thread's log in the running session; null if there is none.
  static ThreadLog* current();

  void op_begin(const at::RecordFunction& fn, bool inputs);
  void op_end();
  // Returns the scope's serial, 0 if it was dropped.
  uint64_t scope_begin(const at::RecordFunction& fn, bool inputs);
  // log: that in which the scope began, see id().
  void scope_end(uint32_t log, uint64_t serial);
  void step_begin(int64_t number);
  void step_end();
  void memory(const Memory& memory);

  uint32_t id() const { return id_; }
  uint64_t generation() const { return generation_; }

 private:
  friend class Hub;
  friend struct ThreadLogHolder;

  struct CachedName {
    const char* key = nullptr;   // where the name was seen
    const char* text = nullptr;  // the hub's copy
    size_t size = 0;
    uint32_t id = 0;
  };

  void restart();
  uint32_t name_id(const char* text);
  bool begin(Kind kind, const at::RecordFunction& fn, bool inputs, uint64_t serial);
  // Writes a begin record into the chunk if it fits above the reserve.
  bool try_begin(Kind kind, const at::RecordFunction& fn, uint32_t name, bool inputs, uint64_t serial,
                 uint64_t time);
  // Writes any other record; reserved: into the room that its begin has kept. False if there is no room.
  bool append(Kind kind, uint32_t id, const void* payload, size_t payload_size, bool reserved);
  void count_drop();

  uint32_t id_ = 0;
  int64_t thread_ = 0;
  std::shared_ptr<Session> session_;  // in which it records, or recorded last
  uint64_t generation_ = 0;           // of session_
  std::unique_ptr<Chunk> chunk_;
  size_t used_ = 0;      // of the chunk
  size_t reserved_ = 0;  // bytes that the ends of what is open will need
  uint64_t serial_ = 0;
  bool step_recorded_ = false;            // the open step's begin was written
  size_t depth_ = 0;                      // ops that are open
  std::array<bool, 1024> recorded_{};     // of each: whether its begin was written
  std::array<CachedName, 1024> names_{};  // by address
};

}  // namespace omni::stream
