// Appending records, and handing chunks over.
#include "profiler/stream_log.h"

#include <c10/util/ApproximateClock.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "profiler/stream_activities.h"
#include "profiler/stream_encoder.h"

namespace omni::stream {
namespace {

constexpr size_t kOpEndBytes = sizeof(Header);
constexpr size_t kScopeEndBytes = sizeof(Header) + sizeof(uint64_t);
constexpr size_t kStepEndBytes = sizeof(Header);

constexpr size_t padded(size_t size) { return (size + 7) & ~size_t{7}; }

}  // namespace

// Owns the calling thread's log, which leaves the hub with the thread.
struct ThreadLogHolder {
  std::unique_ptr<ThreadLog> log;
  ~ThreadLogHolder();
};

namespace {

thread_local ThreadLogHolder holder;

// The same log, without the price of a thread_local that has a destructor. The model is right because this library is
// loaded with the program.
#ifdef __GNUC__
[[gnu::tls_model("initial-exec")]]
#endif
constinit thread_local ThreadLog* current_log = nullptr;

// What records while the thread is taken apart has no log any more.
constinit thread_local bool thread_has_ended = false;

}  // namespace

ThreadLogHolder::~ThreadLogHolder() {
  current_log = nullptr;
  thread_has_ended = true;
  if (log) Hub::get().remove(*log);
}

Hub& Hub::get() {
  static Hub* const hub = new Hub;  // never destroyed
  return *hub;
}

bool Session::next(Filled& out) {
  std::unique_lock lock(mutex_);
  filled_.wait(lock, [this] { return closed_ || !queue_.empty(); });
  return take(out);
}

bool Session::next(Filled& out, std::chrono::steady_clock::time_point until) {
  std::unique_lock lock(mutex_);
  filled_.wait_until(lock, until, [this] { return closed_ || !queue_.empty(); });
  return take(out) || !closed_;
}

// With mutex_ held.
bool Session::take(Filled& out) {
  out = {};
  if (queue_.empty()) return false;
  out = std::move(queue_.front());
  queue_.pop_front();
  return true;
}

uint32_t Names::intern(const char* text, size_t size, const char** kept) {
  const std::lock_guard lock(mutex_);
  std::string key(text, size);
  if (names_.size() >= kShared && !ids_.contains(key)) key = "(one of too many names)";
  const auto [it, added] = ids_.try_emplace(std::move(key), static_cast<uint32_t>(names_.size()));
  if (added) names_.push_back(&it->first);  // keys of the map stay where they are
  *kept = it->first.c_str();
  return it->second;
}

std::string Names::name(uint32_t id) const {
  const std::lock_guard lock(mutex_);
  return *names_.at(id);
}

void Session::push(Filled filled) {
  std::vector<Filled> expired;  // goes back to the pool outside of the lock
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(filled));
    const uint64_t now = queue_.back().closed_at;
    while (ring() && now - queue_.front().closed_at > ring_ticks_) {
      expired.push_back(std::move(queue_.front()));
      queue_.pop_front();
    }
  }
  if (!ring()) filled_.notify_one();
}

bool Session::pop_oldest() {
  Filled oldest;
  const std::lock_guard lock(mutex_);
  if (queue_.empty()) return false;
  oldest = std::move(queue_.front());
  queue_.pop_front();
  complete_since_.store(oldest.closed_at, std::memory_order_relaxed);
  return true;
}

void Session::close() {
  std::deque<Filled> released;  // outside of the lock
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    if (ring()) released.swap(queue_);
  }
  filled_.notify_all();
}

std::shared_ptr<Session> Hub::open(const Session::Options& options) {
  const std::lock_guard lock(mutex_);
  session_ = std::make_shared<Session>(++last_generation_, options);
  open_generation_.store(last_generation_, std::memory_order_release);
  return session_;
}

void Hub::close() {
  const std::lock_guard lock(mutex_);
  open_generation_.store(0, std::memory_order_release);
  if (!session_->ring()) copy_open(*session_, &Pool::take_extra);
  for (ThreadLog* log : logs_) {
    if (log->session_ != session_) continue;
    session_->tally_.events += log->events_.load(std::memory_order_relaxed);
    session_->tally_.costs += log->meter_.costs();
  }
  session_->close();
  session_.reset();
}

std::shared_ptr<Session> Hub::snapshot() {
  const std::lock_guard lock(mutex_);
  const auto copy = std::make_shared<Session>(session_->generation_, Session::Options{});
  copy->names_ = session_->names_;
  copy->complete_since_.store(session_->complete_since(), std::memory_order_relaxed);
  {
    const std::lock_guard queue_lock(session_->mutex_);
    copy->queue_ = session_->queue_;
  }
  copy_open(*copy, &Pool::take_extra);
  copy->close();
  return copy;
}

std::deque<Filled> Hub::collect(Session& session) {
  const std::lock_guard lock(mutex_);
  if (session_.get() == &session) copy_open(session, &Pool::take);
  const std::lock_guard queue_lock(session.mutex_);
  return std::exchange(session.queue_, {});
}

void Hub::copy_open(Session& to, ChunkRef (Pool::*take)()) {
  for (ThreadLog* log : logs_) {
    if (log->session_ != session_ || !log->chunk_) continue;
    const uint32_t used = log->chunk_->used.load(std::memory_order_acquire);
    const uint32_t size = used - log->collected_;
    if (size == 0) continue;
    ChunkRef copy = (Pool::get().*take)();
    if (!copy) continue;
    std::memcpy(copy->bytes.data(), log->chunk_->bytes.data() + log->collected_, size);
    copy->used.store(size, std::memory_order_relaxed);
    if (&to == session_.get()) log->collected_ = used;
    to.push(log->filled(std::move(copy), 0));
  }
}

Session::Tally Hub::tally(const Session& session) {
  const std::lock_guard lock(mutex_);
  Session::Tally tally = session.tally_;
  if (session_.get() != &session) return tally;
  for (const ThreadLog* log : logs_) {
    if (log->session_ != session_) continue;
    tally.events += log->events_.load(std::memory_order_relaxed);
    tally.costs += log->meter_.costs();
  }
  return tally;
}

void Hub::trim() {
  const std::lock_guard lock(mutex_);
  if (!session_) Pool::get().trim();
}

void Hub::add(ThreadLog& log) {
  const std::lock_guard lock(mutex_);
  log.id_ = ++last_log_;
  logs_.push_back(&log);
}

void Hub::remove(ThreadLog& log) {
  const std::lock_guard lock(mutex_);
  logs_.erase(std::find(logs_.begin(), logs_.end(), &log));
  if (!session_ || log.session_ != session_) return;
  session_->tally_.events += log.events_.load(std::memory_order_relaxed);
  session_->tally_.costs += log.meter_.costs();
  if (log.chunk_) push_chunk(log);
}

bool Hub::join(ThreadLog& log) {
  const std::lock_guard lock(mutex_);
  if (!session_) return false;
  log.session_ = session_;
  log.generation_ = session_->generation();
  ::pthread_getname_np(::pthread_self(), log.thread_name_.data(), log.thread_name_.size());
  log.events_.store(0, std::memory_order_relaxed);
  log.meter_.reset();
  if (log.chunk_) log.chunk_->used.store(0, std::memory_order_relaxed);
  log.collected_ = 0;
  return true;
}

bool Hub::exchange(ThreadLog& log) {
  const std::lock_guard lock(mutex_);
  if (!session_ || log.session_ != session_) return false;
  ChunkRef fresh = Pool::get().take();
  // A chunk of the ring's that a dump still reads does not come free: the next oldest may.
  while (!fresh && session_->ring() && session_->pop_oldest()) fresh = Pool::get().take();
  if (!fresh) {
    log.count_drop();
    return false;
  }
  if (log.chunk_) push_chunk(log);
  log.chunk_ = std::move(fresh);
  return true;
}

void Hub::push_chunk(ThreadLog& log) {
  session_->push(log.filled(std::move(log.chunk_), std::exchange(log.collected_, 0)));
}

Filled ThreadLog::filled(ChunkRef chunk, uint32_t begin) const {
  return {id_, thread_, c10::getApproximateTime(), std::move(chunk), begin, thread_name_};
}

ThreadLog* ThreadLog::current() {
  const uint64_t generation = Hub::generation();
  if (generation == 0) return nullptr;
  ThreadLog* const log = current_log;
  if (log != nullptr && log->generation_ == generation) return log;
  return join_current();
}

ThreadLog* ThreadLog::join_current() {
  if (thread_has_ended) return nullptr;
  Hub& hub = Hub::get();
  if (current_log == nullptr) {
    auto log = std::make_unique<ThreadLog>();
    log->thread_ = ::syscall(SYS_gettid);
    hub.add(*log);
    current_log = log.get();
    holder.log = std::move(log);
  }
  if (!hub.join(*current_log)) return nullptr;
  current_log->restart();
  return current_log;
}

void ThreadLog::restart() {
  used_ = chunk_ ? 0 : kChunkBytes;
  reserved_ = 0;
  depth_ = 0;
  // Numbers of different threads must differ, and a double must hold them.
  external_ = session_->gpu_ == nullptr ? 0 : uint64_t{id_ % 8192} << 40;
  step_recorded_ = false;
  names_.fill({});
}

uint32_t ThreadLog::name_id(const char* text) {
  const auto address = reinterpret_cast<uintptr_t>(text);
  CachedName& cached = names_[(address ^ (address >> 10)) % names_.size()];
  // The address alone is not enough: names of scopes come and go where others were.
  if (cached.key == text && std::strncmp(cached.text, text, cached.size + 1) == 0) return cached.id;
  cached.size = std::strlen(text);
  cached.id = session_->names_->intern(text, cached.size, &cached.text);
  cached.key = text;
  return cached.id;
}

uint32_t ThreadLog::lasting_name_id(std::string_view text) {
  const auto address = reinterpret_cast<uintptr_t>(text.data());
  CachedName& cached = names_[(address ^ (address >> 10)) % names_.size()];
  if (cached.key == text.data() && std::string_view(cached.text, cached.size) == text) return cached.id;
  cached.size = text.size();
  cached.id = session_->names_->intern(text.data(), text.size(), &cached.text);
  cached.key = text.data();
  return cached.id;
}

void ThreadLog::op_begin(const at::RecordFunction& fn, bool inputs) {
  if (depth_ < recorded_.size()) {
    recorded_[depth_] = begin(Kind::kOpBegin, fn, inputs, 0);
    if (session_->gpu_ != nullptr && recorded_[depth_]) session_->gpu_->push(external_);
  } else {
    count_drop();
  }
  ++depth_;
}

void ThreadLog::op_end() {
  if (depth_ == 0) return;  // began before the session
  --depth_;
  if (depth_ >= recorded_.size() || !recorded_[depth_]) return;
  if (session_->gpu_ != nullptr) session_->gpu_->pop();
  append(Kind::kOpEnd, 0, nullptr, 0, true);
  reserved_ -= kOpEndBytes;
}

uint64_t ThreadLog::scope_begin(const at::RecordFunction& fn, bool inputs) {
  return begin(Kind::kScopeBegin, fn, inputs, serial_ + 1) ? ++serial_ : 0;
}

void ThreadLog::scope_end(uint32_t log, uint64_t serial) {
  const bool own = log == id_;
  append(Kind::kScopeEnd, log, &serial, sizeof serial, own);
  if (own) reserved_ -= kScopeEndBytes;
}

void ThreadLog::step_begin(int64_t number) {
  step_recorded_ = admit() && append(Kind::kStepBegin, 0, &number, sizeof number, false);
  if (!step_recorded_) return;
  reserved_ += kStepEndBytes;
  count_event();
}

void ThreadLog::step_end() {
  if (!std::exchange(step_recorded_, false)) return;
  append(Kind::kStepEnd, 0, nullptr, 0, true);
  reserved_ -= kStepEndBytes;
}

void ThreadLog::memory(const Memory& memory) {
  if (admit() && append(Kind::kMemory, 0, &memory, sizeof memory, false)) count_event();
}

void ThreadLog::activity(const cuda::GpuActivity& activity) {
  const bool event = cuda::is_event(activity.kind);
  if (event && !admit()) return;
  const uint32_t name = lasting_name_id(activity.name);
  if (append_at(activity.start, Kind::kActivity, name, activity_payload(activity), activity_bytes(activity),
                false) &&
      event)
    count_event();
}

void ThreadLog::activities_end(const std::map<std::string, int64_t>& lost) {
  for (const auto& [reason, count] : lost)
    append(Kind::kLost, name_id(reason.c_str()), &count, sizeof count, false);
  append(Kind::kActivitiesEnd, 0, nullptr, 0, false);
}

bool ThreadLog::begin(Kind kind, const at::RecordFunction& fn, bool inputs, uint64_t serial) {
  if (!admit()) return false;
  const uint32_t name = name_id(fn.name());
  if (kind == Kind::kOpBegin && session_->gpu_ != nullptr) ++external_;
  const uint64_t time = c10::getApproximateTime();
  bool written = try_begin(kind, fn, name, inputs, serial, time);
  if (!written) {
    if (!Hub::get().exchange(*this)) return false;
    used_ = 0;
    // More inputs than a chunk holds: the op is worth more than they are.
    written =
        try_begin(kind, fn, name, inputs, serial, time) || try_begin(kind, fn, name, false, serial, time);
    if (!written) {
      count_drop();
      return false;
    }
  }
  count_event();
  return true;
}

bool ThreadLog::try_begin(Kind kind, const at::RecordFunction& fn, uint32_t name, bool inputs,
                          uint64_t serial, uint64_t time) {
  const size_t end_bytes = kind == Kind::kOpBegin ? kOpEndBytes : kScopeEndBytes;
  const size_t kept = reserved_ + end_bytes;
  if (used_ + sizeof(Header) + kept + 64 > kChunkBytes) return false;
  std::byte* const start = chunk_->bytes.data() + used_;
  Encoder encoder(start + sizeof(Header), chunk_->bytes.data() + kChunkBytes - kept - sizeof(uint64_t));
  Header header{kind, 0, 0, name, time};
  if (fn.scope() == at::RecordScope::USER_SCOPE) header.flags |= kAnnotation;
  if (kind == Kind::kScopeBegin) encoder.put(serial);
  if (kind == Kind::kOpBegin && session_->gpu_ != nullptr) {
    header.flags |= kHasExternal;
    encoder.put(external_);
  }
  if (fn.seqNr() >= 0) {
    header.flags |= kHasSequence;
    encoder.put(Sequence{fn.seqNr(), fn.forwardThreadId()});
  }
  if (inputs && !fn.inputs().empty()) {
    header.flags |= kHasInputs;
    encoder.inputs(fn.inputs());
  }
  if (encoder.full()) return false;
  const auto written = static_cast<size_t>(encoder.at() - start);
  const size_t size = padded(written);
  std::memset(start + written, 0, size - written);  // equal inputs are equal bytes
  header.words = static_cast<uint16_t>(size / 8);
  std::memcpy(start, &header, sizeof header);
  used_ += size;
  reserved_ += end_bytes;
  chunk_->used.store(static_cast<uint32_t>(used_), std::memory_order_release);
  return true;
}

bool ThreadLog::append(Kind kind, uint32_t id, const void* payload, size_t payload_size, bool reserved) {
  return append_at(c10::getApproximateTime(), kind, id, payload, payload_size, reserved);
}

bool ThreadLog::append_at(uint64_t time, Kind kind, uint32_t id, const void* payload, size_t payload_size,
                          bool reserved) {
  const size_t size = sizeof(Header) + payload_size;
  const size_t kept = reserved ? 0 : reserved_ + kStepEndBytes;
  if (used_ + size + kept > kChunkBytes) {
    if (!Hub::get().exchange(*this)) return false;
    used_ = 0;
  }
  std::byte* const start = chunk_->bytes.data() + used_;
  const Header header{kind, 0, static_cast<uint16_t>(size / 8), id, time};
  std::memcpy(start, &header, sizeof header);
  if (payload_size > 0) std::memcpy(start + sizeof header, payload, payload_size);
  used_ += size;
  chunk_->used.store(static_cast<uint32_t>(used_), std::memory_order_release);
  return true;
}

void ThreadLog::count_event() {
  events_.store(events_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

void ThreadLog::count_drop() { session_->dropped_.fetch_add(1, std::memory_order_relaxed); }

}  // namespace omni::stream
