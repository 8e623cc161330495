// From the records of a session to its files.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cuda/activity.h"
#include "profiler/recorder.h"
#include "profiler/report.h"
#include "profiler/stream_log.h"
#include "profiler/stream_reader.h"
#include "profiler/table.h"
#include "profiler/trace_writer.h"

namespace omni::stream {

// Used by one thread at a time, which reads a session's records as they come, or all at once; progress may be asked for on
// any thread.
class Files {
 public:
  // Creates the trace, if config wants one. start_ns: when recording began. gpu: the GPUs that are recorded.
  Files(const RecorderConfig& config, int64_t start_ns, const cuda::Environment& gpu);

  // Before all that follows.
  void open(Session& session);
  // Before the first read: leaves out what ended before a moment, or before the session's records are complete.
  void begin_window(int64_t from_ns);

  void read(const Filled& filled);

  // Brings what was read to disk, where it outlives this process.
  void flush();

  // What is known at the end.
  struct End {
    uint64_t counter = 0;  // when collection ended
    int64_t steps = -1;    // -1: those that were read
    double overhead_ns_per_event = 0;
    int64_t writer_ns = 0;
    std::chrono::steady_clock::time_point began;  // to write
  };
  // Completes the files.
  nlohmann::json finish(const End& end);

  // Any thread.
  int64_t trace_bytes() const { return trace_bytes_.load(std::memory_order_relaxed); }
  int64_t events() const { return events_.load(std::memory_order_relaxed); }

 private:
  void publish();

  const RecorderConfig& config_;
  int64_t start_ns_;
  Session* session_ = nullptr;
  std::optional<TraceWriter> trace_;
  TableBuilder table_;
  std::optional<Reader> reader_;
  FinishedFiles files_;
  std::atomic<int64_t> trace_bytes_{0};
  std::atomic<int64_t> events_{0};
};

// What a session lacks, by reason.
std::map<std::string, int64_t> drops_of(const Session& session);

}  // namespace omni::stream
