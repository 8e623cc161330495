// Appending records, and handing chunks over.
#include "profiler/stream_log.h"

#include <ATen/core/ivalue.h>
#include <c10/core/TensorImpl.h>
#include <c10/util/ApproximateClock.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

namespace omni::stream {
namespace {

constexpr size_t kOpEndBytes = sizeof(Header);
constexpr size_t kScopeEndBytes = sizeof(Header) + sizeof(uint64_t);
constexpr size_t kStepEndBytes = sizeof(Header);

constexpr size_t padded(size_t size) { return (size + 7) & ~size_t{7}; }

// Appends values below a limit; after the first that does not fit, nothing more.
class Encoder {
 public:
  Encoder(std::byte* begin, std::byte* limit) : at_(begin), limit_(limit) {}

  template <typename T>
  void put(const T& value) {
    if (limit_ - at_ < static_cast<ptrdiff_t>(sizeof value)) {
      limit_ = at_;
      full_ = true;
      return;
    }
    std::memcpy(at_, &value, sizeof value);
    at_ += sizeof value;
  }

  void inputs(c10::ArrayRef<const c10::IValue> values) {
    for (const c10::IValue& value : values) input(value);
    put(Tag::kEnd);
  }

  bool full() const { return full_; }
  std::byte* at() const { return at_; }

 private:
  void input(const c10::IValue& value) {
    if (value.isTensor()) {
      tensor(value.toTensor());
    } else if (value.isScalar()) {
      scalar(value);
    } else if (value.isList()) {
      list(value.toListRef(), value.isTensorList());
    } else {
      put(Tag::kOther);
    }
  }

  void tensor(const at::Tensor& tensor) {
    const c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
    if (!tensor.defined() || impl->has_symbolic_sizes_strides() || tensor.is_nested()) {
      put(Tag::kUndefined);
      return;
    }
    const c10::IntArrayRef sizes = tensor.sizes();
    const bool strided = tensor.layout() == at::kStrided;
    const c10::IntArrayRef strides = strided ? tensor.strides() : c10::IntArrayRef();
    uint64_t bits = 0;
    for (const int64_t n : sizes) bits |= static_cast<uint64_t>(n);
    for (const int64_t n : strides) bits |= static_cast<uint64_t>(n);
    const bool wide = bits > std::numeric_limits<uint32_t>::max();
    const struct {
      Tag tag;
      int8_t dtype;
      uint8_t dims;
      uint8_t form;
    } head = {Tag::kTensor, static_cast<int8_t>(tensor.scalar_type()), static_cast<uint8_t>(sizes.size()),
              static_cast<uint8_t>((strided ? kStrided : 0) | (wide ? kWide : 0))};
    put(head);
    dims(sizes, wide);
    dims(strides, wide);
  }

  void dims(c10::IntArrayRef values, bool wide) {
    for (const int64_t value : values) {
      if (wide) {
        put(value);
      } else {
        put(static_cast<uint32_t>(value));
      }
    }
  }

  void scalar(const c10::IValue& value) {
    if (value.isInt()) {
      put(Tag::kInt);
      put(value.toInt());
    } else if (value.isDouble()) {
      put(Tag::kDouble);
      put(value.toDouble());
    } else if (value.isBool()) {
      put(Tag::kBool);
      put(static_cast<uint8_t>(value.toBool()));
    } else if (value.isComplexDouble()) {
      put(Tag::kComplex);
      put(value.toComplexDouble());
    } else {
      put(Tag::kOther);  // a symbol, which has no value
    }
  }

  void list(c10::ArrayRef<c10::IValue> values, bool tensors) {
    if (tensors) {
      if (values.size() > kMaxList) {
        put(Tag::kLongList);
        return;
      }
      put(Tag::kTensorList);
      for (const c10::IValue& value : values) tensor(value.toTensor());
      put(Tag::kEnd);
      return;
    }
    if (values.size() > kMaxList || (!values.empty() && !values[0].isScalar())) {
      put(Tag::kOther);
      return;
    }
    if (values.empty() || values[0].isInt()) {
      put(Tag::kIntList);
      put(static_cast<uint8_t>(values.size()));
      for (const c10::IValue& value : values) put(value.isInt() ? value.toInt() : int64_t{0});
      return;
    }
    put(Tag::kScalarList);
    for (const c10::IValue& value : values) scalar(value);
    put(Tag::kEnd);
  }

  std::byte* at_;
  std::byte* limit_;
  bool full_ = false;
};

}  // namespace

// Owns the calling thread's log, which leaves the hub with the thread.
struct ThreadLogHolder {
  std::unique_ptr<ThreadLog> log;
  ~ThreadLogHolder() {
    if (log) Hub::get().remove(*log);
  }
};

namespace {
thread_local ThreadLogHolder holder;
}  // namespace

Hub& Hub::get() {
  static Hub* const hub = new Hub;  // never destroyed
  return *hub;
}

bool Session::next(Filled& out) {
  std::unique_lock lock(mutex_);
  filled_.wait(lock, [this] { return closed_ || !queue_.empty(); });
  if (queue_.empty()) return false;
  out = std::move(queue_.front());
  queue_.pop_front();
  return true;
}

std::string Session::name(uint32_t id) {
  const std::lock_guard lock(names_mutex_);
  return *names_.at(id);
}

void Session::push(Filled filled) {
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(filled));
  }
  filled_.notify_one();
}

void Session::close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  filled_.notify_all();
}

uint32_t Session::intern(const char* text, size_t size, const char** kept) {
  const std::lock_guard lock(names_mutex_);
  const auto [it, added] =
      name_ids_.try_emplace(std::string(text, size), static_cast<uint32_t>(names_.size()));
  if (added) names_.push_back(&it->first);  // keys of the map stay where they are
  *kept = it->first.c_str();
  return it->second;
}

std::shared_ptr<Session> Hub::open() {
  const std::lock_guard lock(mutex_);
  session_ = std::make_shared<Session>(++last_generation_);
  generation_.store(last_generation_, std::memory_order_release);
  return session_;
}

void Hub::close() {
  const std::lock_guard lock(mutex_);
  generation_.store(0, std::memory_order_release);
  for (ThreadLog* log : logs_) {
    if (log->session_ != session_ || !log->chunk_) continue;
    const uint32_t used = log->chunk_->used.load(std::memory_order_acquire);
    if (used == 0) continue;
    auto copy = std::make_unique_for_overwrite<Chunk>();
    std::memcpy(copy->bytes.data(), log->chunk_->bytes.data(), used);
    copy->used.store(used, std::memory_order_relaxed);
    ++chunks_;
    session_->push({log->id_, log->thread_, std::move(copy)});
  }
  session_->close();
  session_.reset();
}

void Hub::recycle(std::unique_ptr<Chunk> chunk) {
  chunk->used.store(0, std::memory_order_relaxed);
  const std::lock_guard lock(mutex_);
  free_.push_back(std::move(chunk));
}

void Hub::trim() {
  const std::lock_guard lock(mutex_);
  if (session_) return;
  chunks_ -= free_.size();
  free_.clear();
}

void Hub::add(ThreadLog& log) {
  const std::lock_guard lock(mutex_);
  log.id_ = ++last_log_;
  logs_.push_back(&log);
}

void Hub::remove(ThreadLog& log) {
  const std::lock_guard lock(mutex_);
  logs_.erase(std::find(logs_.begin(), logs_.end(), &log));
  if (!log.chunk_) return;
  if (session_ && log.session_ == session_) {
    session_->push({log.id_, log.thread_, std::move(log.chunk_)});
  } else {
    log.chunk_.reset();
    --chunks_;
  }
}

bool Hub::join(ThreadLog& log) {
  const std::lock_guard lock(mutex_);
  if (!session_) return false;
  log.session_ = session_;
  log.generation_ = session_->generation();
  if (log.chunk_) log.chunk_->used.store(0, std::memory_order_relaxed);
  return true;
}

bool Hub::exchange(ThreadLog& log) {
  const std::lock_guard lock(mutex_);
  if (!session_ || log.session_ != session_) return false;
  std::unique_ptr<Chunk> fresh;
  if (!free_.empty()) {
    fresh = std::move(free_.back());  // the one that was used last is in the caches
    free_.pop_back();
  } else if (chunks_ < kPoolChunks) {
    fresh = std::make_unique_for_overwrite<Chunk>();
    ++chunks_;
  } else {
    log.count_drop();
    return false;
  }
  if (log.chunk_) session_->push({log.id_, log.thread_, std::move(log.chunk_)});
  log.chunk_ = std::move(fresh);
  return true;
}

ThreadLog* ThreadLog::current() {
  Hub& hub = Hub::get();
  const uint64_t generation = hub.generation();
  if (generation == 0) return nullptr;
  if (!holder.log) {
    auto log = std::make_unique<ThreadLog>();
    log->thread_ = ::syscall(SYS_gettid);
    hub.add(*log);
    holder.log = std::move(log);
  }
  ThreadLog* const log = holder.log.get();
  if (log->generation_ != generation) {
    if (!hub.join(*log)) return nullptr;
    log->restart();
  }
  return log;
}

void ThreadLog::restart() {
  used_ = chunk_ ? 0 : kChunkBytes;
  reserved_ = 0;
  depth_ = 0;
  step_recorded_ = false;
  names_.fill({});
}

uint32_t ThreadLog::name_id(const char* text) {
  const auto address = reinterpret_cast<uintptr_t>(text);
  CachedName& cached = names_[(address ^ (address >> 10)) % names_.size()];
  // The address alone is not enough: names of scopes come and go where others were.
  if (cached.key == text && std::strncmp(cached.text, text, cached.size + 1) == 0) return cached.id;
  cached.size = std::strlen(text);
  cached.id = session_->intern(text, cached.size, &cached.text);
  cached.key = text;
  return cached.id;
}

void ThreadLog::op_begin(const at::RecordFunction& fn, bool inputs) {
  if (depth_ < recorded_.size()) {
    recorded_[depth_] = begin(Kind::kOpBegin, fn, inputs, 0);
  } else {
    count_drop();
  }
  ++depth_;
}

void ThreadLog::op_end() {
  if (depth_ == 0) return;  // began before the session
  --depth_;
  if (depth_ >= recorded_.size() || !recorded_[depth_]) return;
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
  step_recorded_ = append(Kind::kStepBegin, 0, &number, sizeof number, false);
  if (step_recorded_) reserved_ += kStepEndBytes;
}

void ThreadLog::step_end() {
  if (!std::exchange(step_recorded_, false)) return;
  append(Kind::kStepEnd, 0, nullptr, 0, true);
  reserved_ -= kStepEndBytes;
}

void ThreadLog::memory(const Memory& memory) { append(Kind::kMemory, 0, &memory, sizeof memory, false); }

bool ThreadLog::begin(Kind kind, const at::RecordFunction& fn, bool inputs, uint64_t serial) {
  const uint32_t name = name_id(fn.name());
  const uint64_t time = c10::getApproximateTime();
  if (try_begin(kind, fn, name, inputs, serial, time)) return true;
  if (Hub::get().exchange(*this)) {
    used_ = 0;
    if (try_begin(kind, fn, name, inputs, serial, time)) return true;
    // More inputs than a chunk holds: the op is worth more than they are.
    if (try_begin(kind, fn, name, false, serial, time)) return true;
    count_drop();
  }
  return false;
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
  if (fn.seqNr() >= 0) {
    header.flags |= kHasSequence;
    encoder.put(Sequence{fn.seqNr(), fn.forwardThreadId()});
  }
  if (inputs && !fn.inputs().empty()) {
    header.flags |= kHasInputs;
    encoder.inputs(fn.inputs());
  }
  if (encoder.full()) return false;
  const size_t size = padded(static_cast<size_t>(encoder.at() - start));
  header.words = static_cast<uint16_t>(size / 8);
  std::memcpy(start, &header, sizeof header);
  used_ += size;
  reserved_ += end_bytes;
  chunk_->used.store(static_cast<uint32_t>(used_), std::memory_order_release);
  return true;
}

bool ThreadLog::append(Kind kind, uint32_t id, const void* payload, size_t payload_size, bool reserved) {
  const size_t size = sizeof(Header) + payload_size;
  const uint64_t time = c10::getApproximateTime();
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

void ThreadLog::count_drop() { session_->dropped_.fetch_add(1, std::memory_order_relaxed); }

}  // namespace omni::stream
