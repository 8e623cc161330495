// What recording costs the threads that are recorded, measured while it happens.
//
// The cost of an op has two parts. That of our callbacks is sampled: every 61st is timed with the processor's counter,
// which costs a tenth of a callback and so next to nothing on average. That of torch's own machinery around them, which
// boxes the op's arguments and looks up the callbacks, cannot be seen from inside; it is measured once per process (op_cost.h).
#pragma once

#include <c10/util/ApproximateClock.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <type_traits>

namespace omni::stream {

enum class CostPart : uint8_t { kBegin, kEnd, kMemory, kCount };

// Sums over callbacks. A plain value.
struct Costs {
  struct Part {
    int64_t calls = 0;
    int64_t samples = 0;
    uint64_t ticks = 0;  // of the samples
  };
  std::array<Part, static_cast<size_t>(CostPart::kCount)> parts{};

  Costs& operator+=(const Costs& other);
  // What all calls took together. dispatch_ns: torch's machinery, per op.
  int64_t nanoseconds(double dispatch_ns) const;
};

// The costs of one thread, which writes them; any other may read.
class CostMeter {
 public:
  // Counts a call; whether it is to be timed.
  bool due(CostPart part) {
    Part& p = parts_[static_cast<size_t>(part)];
    bump(p.calls, 1);
    if (++p.since_sample < kStride) return false;
    p.since_sample = 0;
    return true;
  }

  // Takes the duration of a call that was due. What took long enough to have been interrupted is not our cost.
  void add(CostPart part, uint64_t ticks) {
    if (ticks > kLongestTicks) return;
    Part& p = parts_[static_cast<size_t>(part)];
    bump(p.samples, 1);
    bump(p.ticks, ticks);
  }

  Costs costs() const;
  // Begins anew. The writing thread.
  void reset();

 private:
  // A prime, so that it does not keep step with the ops of a loop.
  static constexpr int kStride = 61;
  static constexpr uint64_t kLongestTicks = 100000;

  struct Part {
    std::atomic<int64_t> calls{0};
    std::atomic<int64_t> samples{0};
    std::atomic<uint64_t> ticks{0};
    int since_sample =
        kStride - 3;  // the thread's own; short sessions have samples too, but not of the first call
  };

  // One thread writes, so nothing is lost between load and store.
  template <typename T>
  static void bump(std::atomic<T>& value, std::type_identity_t<T> by) {
    value.store(value.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
  }

  std::array<Part, static_cast<size_t>(CostPart::kCount)> parts_;
};

// Times a callback from its construction to its destruction, if it is due.
class CostScope {
 public:
  CostScope(CostMeter& meter, CostPart part)
      : meter_(meter.due(part) ? &meter : nullptr),
        part_(part),
        begin_(meter_ == nullptr ? 0 : c10::getApproximateTime()) {}
  ~CostScope() {
    if (meter_ != nullptr) meter_->add(part_, c10::getApproximateTime() - begin_);
  }
  CostScope(const CostScope&) = delete;
  CostScope& operator=(const CostScope&) = delete;

 private:
  CostMeter* meter_;
  CostPart part_;
  uint64_t begin_;
};

}  // namespace omni::stream
