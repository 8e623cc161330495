// The GPU's half of a recording: starts and stops a source of activity, and writes what it delivers.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "cuda/activity.h"
#include "cuda/activity_writer.h"
#include "profiler/trace_writer.h"

namespace omni::cuda {

class GpuCollection {
 public:
  using DeviceWork =
      std::function<void(uint64_t external_id, const GpuActivity& activity, int64_t duration_ns)>;

  // [torch thread] Begins to collect, in the processor's own counter. Throws FAILED_PRECONDITION that says what is in
  // the way. The source must outlive this.
  explicit GpuCollection(ActivitySource& source);
  // Ends collection if stop() has not.
  ~GpuCollection();
  GpuCollection(const GpuCollection&) = delete;
  GpuCollection& operator=(const GpuCollection&) = delete;

  ActivitySource& source() { return source_; }

  // [torch thread] Ends collection after the devices have done what was launched.
  void stop();

  // [writer thread, as all that follows] Where activities go, before the first drain. trace may be null. work is called
  // for each piece of work on a device.
  void attach(TraceWriter* trace, std::function<int64_t(uint64_t)> unix_ns, DeviceWork work);
  // Writes what has come so far.
  void drain();
  // After stop(): writes the rest.
  void finish();

  int64_t events() const;
  // What is missing, by reason.
  std::map<std::string, int64_t> dropped() const;
  // What went wrong when collection ended; empty if nothing did.
  const std::string& error() const { return error_; }

 private:
  ActivitySource& source_;
  bool running_ = false;
  std::string error_;
  std::unique_ptr<ActivityWriter> writer_;
};

}  // namespace omni::cuda
