// The chain of lines.
#include "profiler/stream_clock.h"

#include <limits>

namespace omni::stream {
namespace {

// The counter and the system's monotonic clock at one moment. Monotonic, because setting the time of day must not tear a
// trace.
struct Pair {
  uint64_t counter;
  int64_t ns;
};

// Of a few readings the one that was interrupted least.
Pair read_clocks() {
  constexpr int kReadings = 9;
  Pair best{};
  uint64_t shortest = std::numeric_limits<uint64_t>::max();
  for (int i = 0; i < kReadings; ++i) {
    const uint64_t before = c10::getApproximateTime();
    const int64_t ns = c10::getTime(/*allow_monotonic=*/true);
    const uint64_t after = c10::getApproximateTime();
    if (after - before >= shortest) continue;
    shortest = after - before;
    best = {before + shortest / 2, ns};
  }
  return best;
}

// Read when the library is loaded, so that the first session knows the counter's rate.
const Pair kLoaded = read_clocks();

double slope_between(const Pair& a, const Pair& b) {
  return static_cast<double>(b.ns - a.ns) / static_cast<double>(b.counter - a.counter);
}

// A reading that is far enough from the first for the rate to show: soon after the library was loaded it waits for it.
Pair read_far_clocks() {
  constexpr int64_t kLeastNs = 2000000;
  Pair now = read_clocks();
  while (now.ns - kLoaded.ns < kLeastNs) now = read_clocks();
  return now;
}

}  // namespace

Clock::Clock() {
  const Pair now = read_far_clocks();
  origin_ns_ = now.ns;
  unix_offset_ns_ = c10::getTime() - c10::getTime(/*allow_monotonic=*/true);
  lines_.push_back({now.counter, 0, slope_between(kLoaded, now)});
}

double ns_per_tick() { return slope_between(kLoaded, read_far_clocks()); }

void Clock::follow() {
  constexpr double kPeriodNs = 100e6;
  constexpr double kMakeGoodNs = 1e9;  // what the chain is off is made good in this time
  const Line& last = lines_.back();
  if (static_cast<double>(c10::getApproximateTime() - last.counter) * last.slope < kPeriodNs) return;
  const Pair now = read_clocks();
  const double chain_ns = last.ns + static_cast<double>(now.counter - last.counter) * last.slope;
  const double off_ns = static_cast<double>(now.ns - origin_ns_) - chain_ns;
  lines_.push_back({now.counter, chain_ns, slope_between(kLoaded, now) * (1 + off_ns / kMakeGoodNs)});
}

int64_t Clock::unix_ns(uint64_t counter) const {
  // Nearly always the last line: the reader is close behind.
  auto line = lines_.rbegin();
  while (line + 1 != lines_.rend() && counter < line->counter) ++line;
  const double counts = counter >= line->counter ? static_cast<double>(counter - line->counter)
                                                 : -static_cast<double>(line->counter - counter);
  return unix_offset_ns_ + origin_ns_ + static_cast<int64_t>(line->ns + counts * line->slope);
}

}  // namespace omni::stream
