// The GPU's half of a recording: starts and stops a source of activity, and brings what it delivers into a log while the
// recording goes on.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "cuda/activity.h"

namespace omni::cuda {

// Takes what is collected. Used by one thread.
class ActivityLog : public ActivitySink {
 public:
  // All that was complete has been delivered. lost: records that are missing since the last time, by reason.
  virtual void drained(const std::map<std::string, int64_t>& lost) = 0;
};

// A thread asks the source for what is complete ten times a second: the source's buffers would be full after about one, and
// nothing else is sure to happen meanwhile, since one op can launch a graph of a thousand kernels.
class GpuCollection {
 public:
  // [torch thread] Begins to collect, in the processor's own counter. Throws FAILED_PRECONDITION that says what is in
  // the way. The source must outlive this.
  explicit GpuCollection(ActivitySource& source);
  // Ends collection if stop() has not.
  ~GpuCollection();
  GpuCollection(const GpuCollection&) = delete;
  GpuCollection& operator=(const GpuCollection&) = delete;

  ActivitySource& source() { return source_; }
  const Environment& environment() const { return environment_; }

  // Begins to fill the log. Once, after what the log belongs to is open.
  void feed(std::unique_ptr<ActivityLog> log);
  // Any thread, between feed() and stop(): returns when what was complete at the call is in the log.
  void catch_up();
  // [torch thread] Ends collection after the devices have done what was launched; the log has everything then.
  void stop();

  // Any thread: records that the source has lost so far, by reason.
  std::map<std::string, int64_t> dropped() const { return source_.dropped(); }

 private:
  void run();  // the feeding thread
  void drain();

  ActivitySource& source_;
  const Environment environment_;
  bool collecting_ = false;              // the torch thread's
  std::unique_ptr<ActivityLog> log_;     // the feeding thread's
  std::map<std::string, int64_t> told_;  // the feeding thread's: losses that the log knows

  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  bool stopping_ = false;
  uint64_t wanted_ = 0;  // drains that were asked for
  uint64_t done_ = 0;    // of these, so many are done

  std::thread thread_;
};

}  // namespace omni::cuda
