// The trace file: header, events, footer.
#include "profiler/trace_writer.h"

#include <c10/core/DeviceType.h>
#include <c10/util/ApproximateClock.h>
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <random>

#include "profiler/json_text.h"

namespace omni {
namespace {

// Times are relative to the beginning of the day (UTC), so that traces share their base. Kineto's own base is the beginning
// of a quarter: its times have up to 13 digits before the point, Perfetto reads them as doubles, and the nanosecond that
// gets lost makes slices overlap that end together, of which it then drops one: every fifth in the worst case.
constexpr int64_t kBasePeriodNs = int64_t{86400} * 1000000000;
constexpr size_t kFlushBytes = size_t{1} << 20;
// Where Kineto puts the span of the whole recording in the list of processes.
constexpr int64_t kSpansSortIndex = 0x20000000;

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown";
}

// The name that a thread has now; empty if it has ended.
std::string name_of_thread(int64_t thread) {
  std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/comm");
  std::string name;
  std::getline(file, name);
  return name;
}

// Random, in the form of Kineto's: a UUID of version 4 without dashes.
std::string unique_id() {
  std::random_device random;
  std::array<uint32_t, 4> words{};
  for (uint32_t& word : words) word = random();
  words[1] = (words[1] & 0xffff0fff) | 0x4000;
  words[2] = (words[2] & 0x3fffffff) | 0x80000000;
  std::array<char, 33> text{};
  std::snprintf(text.data(), text.size(), "%08X%08X%08X%08X", words[0], words[1], words[2], words[3]);
  return text.data();
}

std::string string_member(std::string_view key, std::string_view value) {
  std::string args;
  append_json_string(args, key);
  args += ": ";
  append_json_string(args, value);
  return args;
}

std::string integer_member(std::string_view key, int64_t value) {
  std::string args;
  append_json_string(args, key);
  args += ": ";
  append_json_int(args, value);
  return args;
}

// One line per member, "key": value with a blank, which HTA's search for the rank needs. nlohmann's dump without
// indentation writes none inside nested objects, so the distributed block is spelled out.
std::string header_text(const RecorderConfig& config, int64_t base_ns, int64_t start_ns,
                        const nlohmann::json& environment) {
  std::string text = "{\n\"schemaVersion\": 1,\n";
  const auto member = [&text](const std::string& key, const nlohmann::json& value) {
    append_json_string(text, key);
    text += ": ";
    text += value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    text += ",\n";
  };
  if (!environment.contains("deviceProperties")) member("deviceProperties", nlohmann::json::array());
  for (const auto& [key, value] : environment.items()) member(key, value);
  member("host_name", host_name());
  member("trace_id", unique_id());
  if (config.with_stack) {
    member("with_stack", 1);
    member("with_modules", 1);
  }
  if (config.record_shapes) member("record_shapes", 1);
  if (config.with_memory) member("profile_memory", 1);
  if (config.with_flops) member("with_flops", 1);
  text += "\"distributedInfo\": {\"backend\": ";
  append_json_string(text, config.world_size > 1 ? "pipeline" : "none");
  text += ", \"rank\": ";
  append_json_int(text, config.rank);
  text += ", \"world_size\": ";
  append_json_int(text, config.world_size);
  text += "},\n";
  member("omni", {{"session", config.session},
                  {"worker", config.worker},
                  {"stage", config.stage},
                  {"recorder", config.recorder},
                  {"start_ns", start_ns},
                  {"monotonic_offset_ns", c10::getTime() - c10::getTime(/*allow_monotonic=*/true)},
                  {"metadata", config.metadata}});
  text += "\"displayTimeUnit\": \"ms\",\n\"baseTimeNanoseconds\": ";
  append_json_int(text, base_ns);
  text += ",\n\"traceEvents\": [";
  return text;
}

}  // namespace

int Lanes::place(int64_t process, int64_t thread, int64_t start_ns, int64_t end_ns) {
  auto& lanes = tracks_[{process, thread}];
  for (size_t lane = 0;; ++lane) {
    if (lane == lanes.size()) lanes.emplace_back();
    auto& [last_start, ends] = lanes[lane];
    if (start_ns < last_start) continue;
    while (!ends.empty() && ends.back() <= start_ns) ends.pop_back();
    if (!ends.empty() && (rule_ == kApart || ends.back() < end_ns)) continue;
    last_start = start_ns;
    ends.push_back(end_ns);
    return static_cast<int>(lane);
  }
}

TraceWriter::TraceWriter(const RecorderConfig& config, int64_t start_ns, const nlohmann::json& environment)
    : file_(config.trace_path, config.use_gzip),
      worker_(config.worker),
      rank_(config.rank),
      process_(::getpid()),
      start_ns_(start_ns),
      base_ns_((config.base_time_ns > 0 ? config.base_time_ns : start_ns) / kBasePeriodNs * kBasePeriodNs),
      buffer_(header_text(config, base_ns_, start_ns_, environment)) {
  // The first event has no comma before it, so it is written here.
  buffer_ += "\n{\"ph\":\"M\",\"name\":\"process_name\"";
  place(process_, 0, start_ns_);
  buffer_ += ",\"args\":{" + string_member("name", worker_) + "}}";
  metadata_event("process_labels", process_, 0, string_member("labels", "CPU"));
  metadata_event("process_sort_index", process_, 0, integer_member("sort_index", rank_));
  flush();
  file_.keep_on_failure();
}

void TraceWriter::op(const HostEvent& event) {
  ++events_;
  const int64_t track = event.thread + event.lane * kLaneStride;
  host_track(track);
  begin_event("X", event.annotation ? "user_annotation" : "cpu_op", event.name);
  place(process_, track, event.start_ns);
  duration(event.start_ns, event.end_ns);
  buffer_ += ",\"args\":{\"External id\":";
  append_json_uint(buffer_, event.external_id);
  buffer_ += ",\"Record function id\":";
  append_json_uint(buffer_, event.function_id);
  if (event.sequence >= 0) {
    buffer_ += ",\"Sequence number\":";
    append_json_int(buffer_, event.sequence);
    buffer_ += ",\"Fwd thread id\":";
    append_json_uint(buffer_, event.forward_thread);
  }
  buffer_ += ",\"Ev Idx\":";
  append_json_int(buffer_, events_ - 1);
  if (!event.stack.empty()) {
    buffer_ += ",\"Call stack\":";
    append_json_string(buffer_, event.stack);
  }
  if (!event.module.empty()) {
    buffer_ += ",\"Module Hierarchy\":";
    append_json_string(buffer_, event.module);
  }
  if (!event.inputs.empty()) {
    buffer_ += ',';
    buffer_ += event.inputs;
  }
  buffer_ += '}';
  end_event();
}

void TraceWriter::memory(const MemoryEvent& event) {
  ++events_;
  host_track(event.thread);
  begin_event("i", "cpu_instant_event", "[memory]");
  buffer_ += ",\"s\":\"t\"";
  place(process_, event.thread, event.time_ns);
  buffer_ += ",\"args\":{\"Addr\":";
  append_json_uint(buffer_, event.address);
  buffer_ += ",\"Bytes\":";
  append_json_int(buffer_, event.bytes);
  buffer_ += ",\"Total Allocated\":";
  append_json_uint(buffer_, event.total_allocated);
  buffer_ += ",\"Total Reserved\":";
  append_json_uint(buffer_, event.total_reserved);
  buffer_ += ",\"Device Type\":";
  append_json_int(buffer_, event.device_type);
  buffer_ += ",\"Device Id\":";
  append_json_int(buffer_, event.device_index);
  buffer_ += ",\"Ev Idx\":";
  append_json_int(buffer_, events_ - 1);
  buffer_ += '}';
  end_event();
  MemoryCounter& counter = memory_counters_[{event.device_type, event.device_index}];
  counter.last = event;
  if (counter.written_ns != INT64_MIN && event.time_ns - counter.written_ns < kCounterPeriodNs) return;
  counter.written_ns = event.time_ns;
  memory_counter(event);
}

void TraceWriter::memory_counter(const MemoryEvent& event) {
  const std::string device = c10::DeviceTypeName(static_cast<c10::DeviceType>(event.device_type));
  std::string name = device + " memory (" + worker_ + ")";
  if (event.device_type != 0)
    name = device + " " + std::to_string(event.device_index) + name.substr(device.size());
  begin_event("C", "memory", name);
  place(process_, 0, event.time_ns);
  buffer_ += ",\"args\":{\"allocated\":";
  append_json_uint(buffer_, event.total_allocated);
  if (event.total_reserved > 0) {
    buffer_ += ",\"reserved\":";
    append_json_uint(buffer_, event.total_reserved);
  }
  buffer_ += '}';
  end_event();
}

void TraceWriter::activity(const ActivityEvent& event) {
  ++events_;
  const int64_t thread = event.thread + event.lane * kLaneStride;
  if (!event.device && event.process == process_) host_track(thread);
  begin_event("X", event.category, event.name);
  place(event.process, thread, event.start_ns);
  duration(event.start_ns, event.end_ns);
  buffer_ += ",\"args\":{";
  buffer_ += event.args;
  buffer_ += '}';
  end_event();
}

void TraceWriter::flow(std::string_view name, uint64_t id, bool start, int64_t time_ns, int64_t process,
                       int64_t thread) {
  begin_event(start ? "s" : "f", name, name);
  buffer_ += ",\"id\":";
  append_json_uint(buffer_, id);
  if (!start) buffer_ += ",\"bp\":\"e\"";
  place(process, thread, time_ns);
  end_event();
}

void TraceWriter::process_name(int64_t process, std::string_view name, std::string_view label,
                               int64_t sort_index) {
  metadata_event("process_name", process, 0, string_member("name", name));
  metadata_event("process_labels", process, 0, string_member("labels", label));
  metadata_event("process_sort_index", process, 0, integer_member("sort_index", sort_index));
}

void TraceWriter::track_name(int64_t process, int64_t thread, std::string_view name, int64_t sort_index) {
  metadata_event("thread_name", process, thread, string_member("name", name));
  metadata_event("thread_sort_index", process, thread, integer_member("sort_index", sort_index));
}

void TraceWriter::mark(std::string_view name, int64_t time_ns) {
  begin_event("i", "cpu_instant_event", name);
  buffer_ += ",\"s\":\"g\"";
  place(process_, 0, time_ns);
  end_event();
}

void TraceWriter::flush() {
  file_.write(buffer_);
  buffer_.clear();
  file_.flush();
}

int64_t TraceWriter::expected_bytes() const {
  // What is still to come: names of threads that have changed, what is open, the footer.
  constexpr int64_t kThreadBytes = 300, kOpenBytes = 10000;
  const auto waiting = static_cast<int64_t>(buffer_.size());
  return file_.expected_bytes(waiting + static_cast<int64_t>(host_tracks_.size()) * kThreadBytes +
                              kOpenBytes);
}

void TraceWriter::finish(int64_t end_ns, const nlohmann::json& totals) {
  rename_tracks();
  for (const auto& [device, counter] : memory_counters_) {
    if (counter.last.time_ns > counter.written_ns) memory_counter(counter.last);
  }
  begin_event("X", "Trace", "PyTorch Profiler (0)");
  buffer_ += ",\"pid\":\"Spans\",\"tid\":\"PyTorch Profiler\",\"ts\":";
  append_json_us(buffer_, start_ns_ - base_ns_);
  duration(start_ns_, end_ns);
  buffer_ += ",\"args\":{\"Op count\":";
  append_json_int(buffer_, events_);
  buffer_ += '}';
  end_event();
  buffer_ += ",\n{\"ph\":\"M\",\"name\":\"process_sort_index\",\"pid\":\"Spans\",\"tid\":0,\"ts\":";
  append_json_us(buffer_, start_ns_ - base_ns_);
  buffer_ += ",\"args\":{" + integer_member("sort_index", kSpansSortIndex) + "}}";
  buffer_ +=
      ",\n{\"ph\":\"i\",\"s\":\"g\",\"name\":\"Iteration Start: PyTorch Profiler\",\"pid\":\"Traces\","
      "\"tid\":\"Trace PyTorch Profiler\",\"ts\":";
  append_json_us(buffer_, start_ns_ - base_ns_);
  buffer_ += "},\n{\"ph\":\"i\",\"s\":\"g\",\"name\":\"Record Window End\",\"pid\":\"\",\"tid\":\"\",\"ts\":";
  append_json_us(buffer_, end_ns - base_ns_);
  buffer_ += "}\n],\n\"omniTotals\": ";
  buffer_ += totals.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  buffer_ += ",\n\"traceName\": ";
  append_json_string(buffer_, file_.path());
  buffer_ += "\n}\n";
  file_.write(buffer_);
  buffer_.clear();
  file_.commit();
}

void TraceWriter::begin_event(std::string_view phase, std::string_view category, std::string_view name) {
  buffer_ += ",\n{\"ph\":\"";
  buffer_ += phase;
  buffer_ += "\",\"cat\":\"";
  buffer_ += category;
  buffer_ += "\",\"name\":";
  append_json_string(buffer_, name);
}

void TraceWriter::place(int64_t process, int64_t thread, int64_t time_ns) {
  buffer_ += ",\"pid\":";
  append_json_int(buffer_, process);
  buffer_ += ",\"tid\":";
  append_json_int(buffer_, thread);
  buffer_ += ",\"ts\":";
  append_json_us(buffer_, time_ns - base_ns_);
}

void TraceWriter::duration(int64_t start_ns, int64_t end_ns) {
  buffer_ += ",\"dur\":";
  append_json_us(buffer_, end_ns - start_ns);
}

void TraceWriter::end_event() {
  buffer_ += '}';
  if (buffer_.size() < kFlushBytes) return;
  file_.write(buffer_);
  buffer_.clear();
}

void TraceWriter::metadata_event(std::string_view name, int64_t process, int64_t thread,
                                 std::string_view args) {
  buffer_ += ",\n{\"ph\":\"M\",\"name\":";
  append_json_string(buffer_, name);
  place(process, thread, start_ns_);
  buffer_ += ",\"args\":{";
  buffer_ += args;
  buffer_ += '}';
  end_event();
}

void TraceWriter::thread_name(int64_t thread, std::string_view name) { thread_names_[thread] = name; }

void TraceWriter::host_track(int64_t track) {
  const auto [it, added] = host_tracks_.try_emplace(track);
  if (!added) return;
  it->second = track_label(track);
  // A lane comes after its thread.
  track_name(process_, track, it->second, track % kLaneStride);
}

void TraceWriter::rename_tracks() {
  const std::map<int64_t, std::string> ordered(host_tracks_.begin(), host_tracks_.end());
  for (const auto& [track, label] : ordered) {
    const std::string now = track_label(track);
    if (now != label) track_name(process_, track, now, track % kLaneStride);
  }
}

// "thread 12 (omni-worker)".
std::string TraceWriter::track_label(int64_t track) const {
  const int64_t thread = track % kLaneStride;
  const int64_t lane = track / kLaneStride;
  std::string label = "thread " + std::to_string(thread);
  std::string name = name_of_thread(thread);
  if (const auto noted = thread_names_.find(thread); name.empty() && noted != thread_names_.end())
    name = noted->second;
  if (!name.empty()) label += " (" + name + ")";
  if (lane > 0) label += " overlap " + std::to_string(lane);
  return label;
}

}  // namespace omni
