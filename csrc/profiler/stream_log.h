// Where ops are noted while they run: one append-only log per thread, in chunks from a pool of fixed size.
//
// The hot path takes no lock and allocates nothing. A thread writes into its own chunk and publishes how far with one
// store; a full chunk goes to the session and is replaced from the pool, under a lock, once in thousands of events.
// Room for the end of everything that has begun is kept in the chunk, so an op that is recorded is recorded whole.
//
// An ordinary session hands its chunks to a reader; when the pool is empty events are dropped and counted, never waited
// for. A ring keeps its chunks: what is older than its span goes back to the pool, and when that is empty the oldest does.
//
// Sessions are numbered. A thread that is still inside a callback when its session ends, or comes back when another one
// has begun, finds the number changed and starts its log afresh; what it wrote late lies beyond what close() has copied.
#pragma once

#include <ATen/record_function.h>

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "cuda/activity.h"
#include "profiler/budget.h"
#include "profiler/stream_cost.h"
#include "profiler/stream_pool.h"
#include "profiler/stream_record.h"

namespace omni::stream {

// As the system has it: at most 15 bytes and a zero.
using ThreadName = std::array<char, 16>;

// Records of one thread in their order, on the way to the reader.
struct Filled {
  uint32_t log = 0;        // unique in the process; thread numbers are reused by the system
  int64_t thread = 0;      // of the operating system
  uint64_t closed_at = 0;  // the counter when nothing more was appended
  ChunkRef chunk;
  uint32_t begin = 0;  // where in it: what lies before was collected sooner
  ThreadName name{};
};

class ThreadLog;

// Names of ops by number. Any thread.
class Names {
 public:
  // The number that names share when there are too many. A ring may run for weeks in a program that makes up names.
  static constexpr uint32_t kShared = 65536;

  // The number of a name, and the copy of it that lives as long as this object. After the first kShared they share one.
  uint32_t intern(const char* text, size_t size, const char** kept);
  std::string name(uint32_t id) const;

 private:
  mutable std::mutex mutex_;  // guards what follows
  std::vector<const std::string*> names_;
  std::unordered_map<std::string, uint32_t> ids_;
};

// What one session's threads hand to its reader: records and names. Shared by the session's recorder and by every thread
// that has recorded in it, so it outlives whoever is late.
class Session {
 public:
  struct Options {
    int64_t max_events = 0;   // 0: no limit
    uint64_t ring_ticks = 0;  // a ring that spans so much of the counter; 0: no ring
    cuda::ActivitySource* gpu =
        nullptr;  // is told of every op, so that its work can be joined to it; null: none
  };
  // What was recorded and what it cost.
  struct Tally {
    int64_t events = 0;
    Costs costs;
  };

  Session(uint64_t generation, const Options& options)
      : generation_(generation),
        ring_ticks_(options.ring_ticks),
        gpu_(options.gpu),
        budget_(options.max_events) {}

  // The reader's side: waits for the next records; false when the session has been closed and all is read. If until passes
  // before there are any, out has no chunk.
  bool next(Filled& out);
  bool next(Filled& out, std::chrono::steady_clock::time_point until);

  // The name that id stands for. Any thread.
  std::string name(uint32_t id) const { return names_->name(id); }

  // Any thread.
  uint64_t generation() const { return generation_; }
  bool ring() const { return ring_ticks_ > 0; }
  Budget& budget() { return budget_; }
  const Budget& budget() const { return budget_; }
  // A ring's records are complete since this reading of the counter: older ones have made room. 0: since its beginning.
  uint64_t complete_since() const { return complete_since_.load(std::memory_order_relaxed); }
  // Events that found no room; final after the session has been closed.
  int64_t dropped() const { return dropped_.load(std::memory_order_relaxed); }

 private:
  friend class Hub;
  friend class ThreadLog;

  bool take(Filled& out);
  void push(Filled filled);
  // Nothing is pushed any more. What a ring holds goes back to the pool.
  void close();
  // Gives up the ring's oldest chunk to make room; false if there is none.
  bool pop_oldest();

  const uint64_t generation_;
  const uint64_t ring_ticks_;
  cuda::ActivitySource* const gpu_;
  std::shared_ptr<Names> names_ = std::make_shared<Names>();
  Budget budget_;
  std::atomic<int64_t> dropped_{0};
  std::atomic<uint64_t> complete_since_{0};
  Tally tally_;  // of logs that have left; guarded by the hub's mutex

  std::mutex mutex_;  // guards what follows
  std::condition_variable filled_;
  bool closed_ = false;
  std::deque<Filled> queue_;
};

// All logs. One per process, never destroyed: threads may outlive anything. Any thread.
class Hub {
 public:
  static Hub& get();

  // Begins a session. Not while one is open.
  std::shared_ptr<Session> open(const Session::Options& options = {});
  // Ends the session: nothing more gets in. What threads have published and not yet handed over is copied into its queue.
  void close();

  // All that has been recorded in session and not been read, also what lies in chunks that are not full. Records that a
  // thread has no spare chunk for come later.
  std::deque<Filled> collect(Session& session);

  // What the open ring holds, as a session that has been closed; the ring goes on and keeps it.
  std::shared_ptr<Session> snapshot();

  // What has been recorded in session so far.
  Session::Tally tally(const Session& session);

  // Frees the pool's chunks, unless a session is open and will want them.
  void trim();

  // The open session's, 0 if there is none. Not a member of the one hub: the hot path asks for nothing else of it.
  static uint64_t generation() { return open_generation_.load(std::memory_order_acquire); }

 private:
  friend class ThreadLog;
  friend struct ThreadLogHolder;

  Hub() = default;
  void add(ThreadLog& log);
  void remove(ThreadLog& log);
  // Lets log take part in the open session, if there is one.
  bool join(ThreadLog& log);
  // Hands log's chunk to the session and gives it another. False if the session is over, or if there is none: then the
  // event that needed it counts as dropped.
  bool exchange(ThreadLog& log);
  // Hands log's chunk to the session.
  void push_chunk(ThreadLog& log);
  // Copies what the open session's threads have published and not yet handed over to the queue of to, into chunks from
  // take, which may return none.
  void copy_open(Session& to, ChunkRef (Pool::*take)());

  static inline constinit std::atomic<uint64_t> open_generation_{0};

  std::mutex mutex_;  // guards what follows, and each log's chunk_, collected_ and session_
  uint64_t last_generation_ = 0;
  uint32_t last_log_ = 0;
  std::shared_ptr<Session> session_;  // the open one
  std::vector<ThreadLog*> logs_;
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
  // What a GPU did, reported by the thread that asks it. One of them at least is followed by activities_end().
  void activity(const cuda::GpuActivity& activity);
  void activities_end(const std::map<std::string, int64_t>& lost);

  uint32_t id() const { return id_; }
  uint64_t generation() const { return generation_; }
  CostMeter& meter() { return meter_; }

 private:
  friend class Hub;
  friend struct ThreadLogHolder;

  struct CachedName {
    const char* key = nullptr;   // where the name was seen
    const char* text = nullptr;  // the hub's copy
    size_t size = 0;
    uint32_t id = 0;
  };

  // The slow part of current(): makes the thread's log, or brings it into the running session.
  static ThreadLog* join_current();
  void restart();
  uint32_t name_id(const char* text);
  // Of a text that lies where it is as long as the session lasts.
  uint32_t lasting_name_id(std::string_view text);
  bool begin(Kind kind, const at::RecordFunction& fn, bool inputs, uint64_t serial);
  // Writes a begin record into the chunk if it fits above the reserve.
  bool try_begin(Kind kind, const at::RecordFunction& fn, uint32_t name, bool inputs, uint64_t serial,
                 uint64_t time);
  // Writes any other record, of now; reserved: into the room that its begin has kept. False if there is no room.
  bool append(Kind kind, uint32_t id, const void* payload, size_t payload_size, bool reserved);
  bool append_at(uint64_t time, Kind kind, uint32_t id, const void* payload, size_t payload_size,
                 bool reserved);
  // Whether the session takes one more event.
  bool admit() { return session_->budget_.admit(); }
  void count_event();
  void count_drop();

  // Its records from begin on, in a chunk that holds them.
  Filled filled(ChunkRef chunk, uint32_t begin) const;

  uint32_t id_ = 0;
  int64_t thread_ = 0;
  ThreadName thread_name_{};          // when it joined the session: it may have ended when that is over
  std::shared_ptr<Session> session_;  // in which it records, or recorded last
  uint64_t generation_ = 0;           // of session_
  std::atomic<int64_t> events_{0};    // recorded in session_; others read it
  CostMeter meter_;
  ChunkRef chunk_;
  uint32_t collected_ = 0;  // of the chunk: what the session has already; guarded by the hub's mutex
  size_t used_ = 0;         // of the chunk
  size_t reserved_ = 0;     // bytes that the ends of what is open will need
  uint64_t serial_ = 0;
  uint64_t external_ = 0;                 // of the op that began last; 0 while no GPU is told
  bool step_recorded_ = false;            // the open step's begin was written
  size_t depth_ = 0;                      // ops that are open
  std::array<bool, 1024> recorded_{};     // of each: whether its begin was written
  std::array<CachedName, 1024> names_{};  // by address
};

}  // namespace omni::stream
