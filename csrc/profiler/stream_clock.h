// Turns the processor's counter, which costs a few nanoseconds to read, into Unix time while a session runs.
#pragma once

#include <c10/util/ApproximateClock.h>

#include <cstdint>
#include <vector>

namespace omni::stream {

// The counter's rate is not known exactly, so the conversion follows the system's monotonic clock: time is a chain of lines, each
// joined to the one before and sloped so that it meets that clock again. The chain never goes backwards and never
// changes where it has been used, so what nested keeps nesting.
//
// Not thread-safe: it belongs to the reader of a session.
class Clock {
 public:
  // Begins the chain now. Reads both clocks a few times.
  Clock();

  // Extends the chain, if the last line is old enough. Times that were converted before lie before its new end.
  void follow();

  int64_t unix_ns(uint64_t counter) const;

 private:
  struct Line {
    uint64_t counter;  // where it begins
    double ns;         // monotonic time there, relative to origin_ns_
    double slope;      // nanoseconds per count
  };

  int64_t origin_ns_;  // of the monotonic clock; keeps the numbers small enough for the precision of double
  int64_t unix_offset_ns_;  // Unix time minus the monotonic clock, when the chain began
  std::vector<Line> lines_;
};

// The counter's period. Known from the moment the library is loaded, to a few parts in a thousand at first.
double ns_per_tick();

}  // namespace omni::stream
