// From what a GPU did to the events of a trace, under the names and arguments that Kineto gives them: what reads
// torch.profiler's traces reads these.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "cuda/activity.h"
#include "cuda/annotation_spans.h"
#include "profiler/trace_writer.h"

namespace omni::cuda {

// Takes what drain() delivers and writes it after each drain, so that memory does not grow with the trace.
//
// Where events go: work on a device to (device, stream), waits for a stream and events on it to a track of their own beside
// it, calls to the host thread that made them, overhead to a process of its own. Work that overlaps on one stream
// (programmatic dependent launch, graphs) is put on further lanes, since readers drop slices that overlap; args.stream says
// which stream it was. The spans of annotations are above the work on the stream's track, where readers look for them, or
// on a lane of their own if they would cross something there. Every launch and what it launched are joined by an arrow,
// once both are known.
//
// Not thread-safe.
class ActivityWriter final : public ActivitySink {
 public:
  // unix_ns turns a time of the source's clock into Unix time. trace may be null: then events are only counted.
  ActivityWriter(TraceWriter* trace, std::function<int64_t(uint64_t)> unix_ns);

  // Keeps an activity until flush(). The source's texts must still be there then.
  void activity(const GpuActivity& activity) override;

  // Writes what has come since the last call, in the order of time.
  void flush();
  // Writes the names of all tracks, once, at the end.
  void finish();

  int64_t events() const { return events_; }
  // What was not written, by reason: "gpu_time" for records without a sensible beginning and end.
  const std::map<std::string, int64_t>& dropped() const { return dropped_; }

  // Writes when a stream worked for an annotation of the host.
  void annotation(std::string_view name, uint64_t external_id, const StreamSpan& span);

  // A piece of work on a device and the ops that it belongs to, 0 if they are not known: that which launched it, and that
  // whose time it is, which is another one for a graph's node.
  struct DeviceWork {
    std::string_view name;
    uint64_t launched_by = 0;
    uint64_t belongs_to = 0;
    StreamSpan span;
  };
  // Called for each.
  std::function<void(const DeviceWork& work)> on_device_work;

 private:
  // What is known of a correlation number. They count up, so a ring of the last ones is enough.
  struct Link {
    uint32_t correlation = 0;
    bool launched = false;   // the call has been written: process, thread and time are its
    bool by_driver = false;  // that call was one of the driver
    bool worked = false;     // the same for the work
    bool joined = false;
    uint64_t external_id = 0;
    int64_t call_process = 0;
    int64_t call_thread = 0;
    int64_t call_ns = 0;
    int64_t work_process = 0;
    int64_t work_thread = 0;
    int64_t work_ns = 0;
  };
  static constexpr size_t kLinks = size_t{1} << 16;

  // Where an event was recorded lately: correlation of the call and stream.
  struct EventRecords {
    uint32_t context = 0;
    uint32_t event = 0;
    std::vector<std::pair<uint32_t, uint32_t>> recent;  // in the order of the calls
  };
  static constexpr size_t kEvents = size_t{1} << 14;
  static constexpr size_t kRecentRecords = 8;

  Link& link(uint32_t correlation);
  EventRecords& records_of(const GpuActivity& activity);
  void recorded(const GpuActivity& activity);
  void write(const GpuActivity& activity);
  void write_call(const GpuActivity& activity, ActivityEvent& event);
  void write_work(const GpuActivity& activity, ActivityEvent& event);
  void write_wait(const GpuActivity& activity, ActivityEvent& event);
  void join(Link& link);
  std::string wait_args(const GpuActivity& activity, int64_t device, uint64_t external_id);
  std::string work_args(const GpuActivity& activity, int64_t duration_ns, uint64_t external_id) const;

  TraceWriter* trace_;
  std::function<int64_t(uint64_t)> unix_ns_;
  std::vector<GpuActivity> waiting_;
  std::vector<Link> links_;
  std::map<uint64_t, uint64_t> captured_;  // the op that captured a graph node
  std::map<uint32_t, uint32_t> devices_of_contexts_;
  std::vector<EventRecords> event_records_;  // by a hash of context and event: a later one takes the place
  Lanes lanes_{Lanes::kNested};
  Lanes work_lanes_{Lanes::kApart};
  Lanes annotation_lanes_{Lanes::kNested};  // above the work on its track
  Lanes crossing_lanes_{Lanes::kNested};
  std::set<std::pair<int64_t, int64_t>> streams_;  // (device, track) that events were written to
  bool overhead_ = false;
  int64_t events_ = 0;
  std::map<std::string, int64_t> dropped_;
};

// The header's "deviceProperties", in Kineto's words.
nlohmann::json device_properties_json(const std::vector<DeviceProperties>& devices);

// The members of the header.
nlohmann::json environment_json(const Environment& environment);

}  // namespace omni::cuda
