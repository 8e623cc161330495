// Tracks, arrows and arguments of GPU events.
#include "cuda/activity_writer.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string_view>

#include "profiler/json_text.h"

namespace omni::cuda {
namespace {

// Where Kineto puts these: tracks of waits behind all streams, devices behind all processes.
constexpr int64_t kWaitTracks = 1000000;
constexpr int64_t kContextWaits = 999999;
// The first lane of annotations that are not on the stream's own track.
constexpr int kAnnotationLanes = 100;
constexpr int64_t kDeviceSortIndex = 0x1000000;
constexpr int64_t kOverheadProcess = -1;
constexpr int64_t kOverheadSortIndex = 0x1100000;

void key(std::string& args, std::string_view name) {
  if (!args.empty()) args += ", ";
  args += '"';
  args += name;
  args += "\": ";
}

void member(std::string& args, std::string_view name, uint64_t value) {
  key(args, name);
  append_json_uint(args, value);
}

void signed_member(std::string& args, std::string_view name, int64_t value) {
  key(args, name);
  append_json_int(args, value);
}

void float_member(std::string& args, std::string_view name, double value) {
  key(args, name);
  char digits[48];
  args.append(digits, std::to_chars(digits, digits + sizeof digits, value, std::chars_format::fixed, 6).ptr);
}

int64_t track_of(const ActivityEvent& event) { return event.thread + event.lane * kLaneStride; }

bool is_call(ActivityKind kind) { return kind == ActivityKind::kRuntime || kind == ActivityKind::kDriver; }

std::string_view category(ActivityKind kind) {
  switch (kind) {
    case ActivityKind::kKernel:
      return "kernel";
    case ActivityKind::kMemcpy:
      return "gpu_memcpy";
    case ActivityKind::kMemset:
      return "gpu_memset";
    case ActivityKind::kRuntime:
      return "cuda_runtime";
    case ActivityKind::kDriver:
      return "cuda_driver";
    case ActivityKind::kSync:
      return "cuda_sync";
    case ActivityKind::kEventRecord:
      return "cuda_event";
    default:
      return "overhead";
  }
}

// inner: a call of the driver inside one of the runtime with the same number. Readers that look for the call that
// launched a kernel must find one.
std::string call_args(const GpuActivity& activity, uint64_t external_id, bool inner) {
  std::string args;
  if (external_id != 0) member(args, "External id", external_id);
  member(args, "cbid", activity.cbid);
  member(args, inner ? "runtime correlation" : "correlation", activity.correlation);
  return args;
}

void kernel_args(std::string& args, const GpuActivity& activity) {
  member(args, "registers per thread", activity.registers);
  signed_member(args, "shared memory", activity.shared_memory);
  if (activity.blocks_per_sm >= 0) float_member(args, "blocks per SM", activity.blocks_per_sm);
  if (activity.warps_per_sm >= 0) float_member(args, "warps per SM", activity.warps_per_sm);
  key(args, "grid");
  append_json_ints(args, activity.grid);
  key(args, "block");
  append_json_ints(args, activity.block);
  if (activity.occupancy >= 0) {
    signed_member(args, "est. achieved occupancy %", std::lround(activity.occupancy));
  }
  signed_member(args, "priority", activity.priority);
}

}  // namespace

ActivityWriter::ActivityWriter(TraceWriter* trace, std::function<int64_t(uint64_t)> unix_ns)
    : trace_(trace), unix_ns_(std::move(unix_ns)), links_(kLinks), event_records_(kEvents) {}

void ActivityWriter::activity(const GpuActivity& activity) {
  switch (activity.kind) {
    case ActivityKind::kExternal:
      link(activity.correlation).external_id = activity.external_id;
      return;
    case ActivityKind::kGraphNode:
      captured_[activity.graph_node] = activity.external_id;
      return;
    default:
      waiting_.push_back(activity);
  }
}

void ActivityWriter::flush() {
  std::stable_sort(waiting_.begin(), waiting_.end(), [](const GpuActivity& a, const GpuActivity& b) {
    return a.start != b.start ? a.start < b.start : a.end > b.end;
  });
  for (const GpuActivity& activity : waiting_) {
    if (activity.kind == ActivityKind::kEventRecord) recorded(activity);
    if (activity.kind != ActivityKind::kSync && !is_call(activity.kind) &&
        activity.kind != ActivityKind::kOverhead)
      devices_of_contexts_[activity.context] = activity.device;
  }
  for (const GpuActivity& activity : waiting_) write(activity);
  waiting_.clear();
}

ActivityWriter::Link& ActivityWriter::link(uint32_t correlation) {
  Link& found = links_[correlation % kLinks];
  if (found.correlation != correlation) {
    found = Link();
    found.correlation = correlation;
  }
  return found;
}

ActivityWriter::EventRecords& ActivityWriter::records_of(const GpuActivity& activity) {
  EventRecords& found = event_records_[(activity.event ^ activity.context * size_t{40503}) % kEvents];
  if (found.event != activity.event || found.context != activity.context) {
    found.context = activity.context;
    found.event = activity.event;
    found.recent.clear();
  }
  return found;
}

void ActivityWriter::recorded(const GpuActivity& activity) {
  auto& recent = records_of(activity).recent;
  const std::pair record(activity.correlation, activity.stream);
  recent.insert(std::upper_bound(recent.begin(), recent.end(), record), record);
  if (recent.size() > kRecentRecords) recent.erase(recent.begin());
}

void ActivityWriter::write(const GpuActivity& activity) {
  // Not every driver says when an event was reached.
  if (activity.kind == ActivityKind::kEventRecord && activity.start == 0) return;
  // CUPTI gives times of 0 to what it has seen only in part.
  if (activity.start == 0 || activity.end < activity.start) {
    ++dropped_["gpu_time"];
    return;
  }
  ActivityEvent event;
  event.category = category(activity.kind);
  event.name = activity.name;
  event.start_ns = unix_ns_(activity.start);
  event.end_ns = unix_ns_(activity.end);
  ++events_;
  if (is_call(activity.kind)) {
    write_call(activity, event);
  } else if (activity.kind == ActivityKind::kOverhead) {
    overhead_ = true;
    event.process = kOverheadProcess;
    event.lane = lanes_.place(event.process, event.thread, event.start_ns, event.end_ns);
    if (trace_ != nullptr) trace_->activity(event);
  } else if (activity.kind == ActivityKind::kSync || activity.kind == ActivityKind::kEventRecord) {
    write_wait(activity, event);
  } else {
    write_work(activity, event);
  }
}

void ActivityWriter::write_call(const GpuActivity& activity, ActivityEvent& event) {
  Link& known = link(activity.correlation);
  const bool inner = activity.kind == ActivityKind::kDriver && known.launched && !known.by_driver;
  const std::string args = call_args(activity, known.external_id, inner);
  event.process = activity.process;
  event.thread = activity.thread;
  event.args = args;
  event.lane = lanes_.place(event.process, event.thread, event.start_ns, event.end_ns);
  if (trace_ != nullptr) trace_->activity(event);
  if (known.launched) return;  // the arrow begins at the outer call
  known.launched = true;
  known.by_driver = activity.kind == ActivityKind::kDriver;
  known.call_process = event.process;
  known.call_thread = track_of(event);
  known.call_ns = event.start_ns;
  join(known);
}

void ActivityWriter::write_work(const GpuActivity& activity, ActivityEvent& event) {
  Link& known = link(activity.correlation);
  const auto captured = activity.graph_node == 0 ? captured_.end() : captured_.find(activity.graph_node);
  event.device = true;
  event.process = activity.device;
  event.thread = activity.stream;
  std::string args = work_args(activity, event.end_ns - event.start_ns, known.external_id);
  if (captured != captured_.end()) member(args, "Capture external id", captured->second);
  event.args = args;
  event.lane = work_lanes_.place(event.process, event.thread, event.start_ns, event.end_ns);
  const int64_t track = track_of(event);
  streams_.insert({event.process, track});
  if (trace_ != nullptr) trace_->activity(event);
  if (on_device_work) {
    on_device_work({.name = activity.name,
                    .launched_by = known.external_id,
                    .belongs_to = captured != captured_.end() ? captured->second : known.external_id,
                    .span = {.device = activity.device,
                             .stream = activity.stream,
                             .start_ns = event.start_ns,
                             .end_ns = event.end_ns,
                             .first_on_track = event.lane == 0,
                             .last_on_track = event.lane == 0}});
  }
  if (known.worked) return;  // a later node of a graph: an arrow has one end
  known.worked = true;
  known.work_process = event.process;
  known.work_thread = track;
  known.work_ns = event.start_ns;
  join(known);
}

// Waits, and the events that are waited for.
void ActivityWriter::write_wait(const GpuActivity& activity, ActivityEvent& event) {
  const auto device = devices_of_contexts_.find(activity.context);
  event.device = true;
  event.process = device == devices_of_contexts_.end() ? 0 : device->second;
  event.thread = activity.stream == kNoStream ? kContextWaits : kWaitTracks + activity.stream;
  if (activity.kind == ActivityKind::kEventRecord)
    event.end_ns = event.start_ns + 1;  // so that it can be seen
  const std::string args = wait_args(activity, event.process, link(activity.correlation).external_id);
  event.args = args;
  event.lane = lanes_.place(event.process, event.thread, event.start_ns, event.end_ns);
  streams_.insert({event.process, track_of(event)});
  if (trace_ != nullptr) trace_->activity(event);
}

std::string ActivityWriter::wait_args(const GpuActivity& activity, int64_t device, uint64_t external_id) {
  std::string args;
  if (external_id != 0) member(args, "External id", external_id);
  if (activity.kind == ActivityKind::kEventRecord) {
    member(args, "event_id", activity.event);
  } else {
    key(args, "cuda_sync_kind");
    append_json_string(args, activity.name);
    if (activity.event != kNoEvent) {
      // The last record of the event before the wait.
      const auto& recent = records_of(activity).recent;
      const auto after =
          std::upper_bound(recent.begin(), recent.end(), std::pair(activity.correlation, UINT32_MAX));
      const bool known = after != recent.begin();
      signed_member(args, "wait_on_stream", known ? int64_t{std::prev(after)->second} : -1);
      signed_member(args, "wait_on_cuda_event_record_corr_id", known ? int64_t{std::prev(after)->first} : -1);
      member(args, "wait_on_cuda_event_id", activity.event);
    }
  }
  signed_member(args, "stream", activity.stream == kNoStream ? -1 : int64_t{activity.stream});
  member(args, "correlation", activity.correlation);
  signed_member(args, "device", device);
  member(args, "context", activity.context);
  return args;
}

void ActivityWriter::annotation(std::string_view name, uint64_t external_id, const StreamSpan& span) {
  ++events_;
  ActivityEvent event;
  event.category = "gpu_user_annotation";
  event.name = name;
  event.start_ns = span.start_ns;
  event.end_ns = span.end_ns;
  event.process = span.device;
  event.thread = span.stream;
  event.device = true;
  std::string args;
  member(args, "External id", external_id);
  event.args = args;
  event.lane = kAnnotationLanes;
  if (span.first_on_track && span.last_on_track)
    event.lane = annotation_lanes_.place(event.process, event.thread, event.start_ns, event.end_ns);
  if (event.lane > 0) {
    event.lane =
        kAnnotationLanes + crossing_lanes_.place(event.process, event.thread, event.start_ns, event.end_ns);
  }
  streams_.insert({event.process, track_of(event)});
  if (trace_ != nullptr) trace_->activity(event);
}

void ActivityWriter::join(Link& link) {
  if (!link.launched || !link.worked || link.joined) return;
  link.joined = true;
  if (trace_ == nullptr || link.correlation == 0) return;
  trace_->flow("ac2g", link.correlation, true, link.call_ns, link.call_process, link.call_thread);
  trace_->flow("ac2g", link.correlation, false, link.work_ns, link.work_process, link.work_thread);
}

std::string ActivityWriter::work_args(const GpuActivity& activity, int64_t duration_ns,
                                      uint64_t external_id) const {
  std::string args;
  if (external_id != 0) member(args, "External id", external_id);
  if (activity.kind == ActivityKind::kKernel) member(args, "queued", activity.queued);
  member(args, "device", activity.device);
  member(args, "context", activity.context);
  member(args, "stream", activity.stream);
  member(args, "correlation", activity.correlation);
  if (activity.kind == ActivityKind::kKernel) {
    kernel_args(args, activity);
  } else {
    member(args, "bytes", activity.bytes);
    if (duration_ns > 0) {
      // Bytes in a nanosecond are gigabytes in a second.
      float_member(args, "memory bandwidth (GB/s)",
                   static_cast<double>(activity.bytes) / static_cast<double>(duration_ns));
    }
  }
  if (activity.graph_node != 0) {
    member(args, "graph id", activity.graph);
    member(args, "graph node id", activity.graph_node);
  }
  if (activity.channel_type != 0) {
    member(args, "channel", activity.channel);
    signed_member(args, "channel_type", activity.channel_type);
  }
  return args;
}

void ActivityWriter::finish() {
  if (trace_ == nullptr) return;
  std::set<int64_t> devices;
  for (const auto& [device, track] : streams_) devices.insert(device);
  for (const int64_t device : devices) {
    const std::string label = "GPU " + std::to_string(device);
    trace_->process_name(device, label, label, kDeviceSortIndex + device);
  }
  for (const auto& [device, track] : streams_) {
    const int64_t lane = track / kLaneStride;
    const int64_t own = track % kLaneStride;
    std::string name;
    if (own == kContextWaits) {
      name = "context (sync)";
    } else if (own >= kWaitTracks) {
      name = "stream " + std::to_string(own - kWaitTracks) + " (sync)";
    } else {
      name = "stream " + std::to_string(own);
    }
    if (lane >= kAnnotationLanes) {
      name += " annotations " + std::to_string(lane - kAnnotationLanes + 1);
    } else if (lane > 0) {
      name += " overlap " + std::to_string(lane);
    }
    trace_->track_name(device, track, name, own * 200 + lane);
  }
  if (overhead_) {
    trace_->process_name(kOverheadProcess, "Overhead", "profiling", kOverheadSortIndex);
    trace_->track_name(kOverheadProcess, 0, "Overhead", 0);
  }
}

nlohmann::json device_properties_json(const std::vector<DeviceProperties>& devices) {
  nlohmann::json list = nlohmann::json::array();
  for (const DeviceProperties& device : devices) {
    list.push_back({{"id", device.id},
                    {"name", device.name},
                    {"totalGlobalMem", device.total_memory},
                    {"computeMajor", device.major},
                    {"computeMinor", device.minor},
                    {"maxThreadsPerBlock", device.threads_per_block},
                    {"maxThreadsPerMultiprocessor", device.threads_per_sm},
                    {"regsPerBlock", device.registers_per_block},
                    {"warpSize", device.warp_size},
                    {"sharedMemPerBlock", device.shared_memory_per_block},
                    {"numSms", device.sms},
                    {"regsPerMultiprocessor", device.registers_per_sm},
                    {"sharedMemPerBlockOptin", device.shared_memory_per_block_optin},
                    {"sharedMemPerMultiprocessor", device.shared_memory_per_sm}});
  }
  return list;
}

nlohmann::json environment_json(const Environment& environment) {
  nlohmann::json json =
      environment.versions.empty() ? nlohmann::json::object() : nlohmann::json(environment.versions);
  json["deviceProperties"] = device_properties_json(environment.devices);
  return json;
}

}  // namespace omni::cuda
