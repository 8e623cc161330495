// Limits of a recording: what happens when one is reached, and how callers learn of it.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace omni {

// Why a recorder takes no more events.
enum class Full : uint8_t { kNo, kEvents, kTraceBytes, kError };

// The name of the limit as the profiler's configuration has it; empty while there is room.
constexpr std::string_view full_name(Full full) {
  switch (full) {
    case Full::kNo:
      return "";
    case Full::kEvents:
      return "max_events";
    case Full::kTraceBytes:
      return "max_trace_mb";
    case Full::kError:
      return "error";
  }
  return "";
}

// The key under which events that came after that count as dropped.
constexpr std::string_view drop_reason(Full full) { return full == Full::kError ? "error" : "budget"; }

// Lets events in until a limit is reached or writing has failed. Any thread; asking costs one load while there is no
// limit on events, one atomic subtraction where there is.
class Budget {
 public:
  // max_events: 0 means no limit.
  explicit Budget(int64_t max_events) : limited_(max_events > 0), left_(max_events) {}

  // Whether one more event may be recorded. Events that may not are counted.
  bool admit() {
    if (full_.load(std::memory_order_relaxed) == Full::kNo) {
      if (!limited_) return true;
      const int64_t left = left_.fetch_sub(1, std::memory_order_relaxed);
      if (left == 1) fill(Full::kEvents);
      if (left > 0) return true;
    }
    refuse();
    return false;
  }

  // Admits nothing any more. The first reason stays.
  void fill(Full reason) {
    Full expected = Full::kNo;
    full_.compare_exchange_strong(expected, reason, std::memory_order_relaxed);
  }

  // Counts an event that was not let in.
  void refuse() { refused_.fetch_add(1, std::memory_order_relaxed); }
  // Counts an event that had been let in and found no room after all.
  void withdraw() {
    refuse();
    withdrawn_.fetch_add(1, std::memory_order_relaxed);
  }

  Full full() const { return full_.load(std::memory_order_relaxed); }
  int64_t refused() const {
    return refused_.load(std::memory_order_relaxed);
  }  // with those that were withdrawn
  int64_t withdrawn() const { return withdrawn_.load(std::memory_order_relaxed); }

 private:
  const bool limited_;
  std::atomic<Full> full_{Full::kNo};
  std::atomic<int64_t> left_;
  std::atomic<int64_t> refused_{0};
  std::atomic<int64_t> withdrawn_{0};
};

// What omni_recorder_status says.
struct RecorderStatus {
  int64_t events = 0;
  std::map<std::string, int64_t> dropped;
  int64_t trace_bytes = 0;
  int64_t overhead_ns = 0;
  Full full = Full::kNo;

  nlohmann::json json() const;
};

}  // namespace omni
