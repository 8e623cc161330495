// Writes a trace in the form that Kineto gives to torch.profiler's traces, so that everything that reads those reads
// ours: Perfetto, chrome://tracing, HTA, torch-tb-profiler. All recorders use it.
//
// It writes the JSON itself, from events, where Kineto could save a file of its own: Kineto's text needs repair for these
// readers (names with non-printable bytes are lost, several values are not under our control, there is no rank), a second
// recorder has no Kineto, and an event per line in place of sixteen halves the text to compress.
//
// What the readers insist on, and where it is met:
//   - slices of one track nest: Lanes below;
//   - times are microseconds with three decimals, relative to a base that all processes share and that is near enough
//     for a double to hold every nanosecond, never negative;
//   - "rank": N with a blank after the colon, another one in each worker's file: HTA finds it by that pattern;
//   - every event has a name, every X event a dur and a cat; text is UTF-8; one gzip member (output_file.h).
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "profiler/output_file.h"
#include "profiler/recorder.h"

namespace omni {

// An op or an annotation on a host thread.
struct HostEvent {
  std::string_view name;
  bool annotation = false;
  int64_t start_ns = 0;  // Unix time
  int64_t end_ns = 0;
  int64_t thread = 0;  // of the operating system
  int lane = 0;        // see Lanes
  uint64_t external_id = 0;
  uint64_t function_id = 0;  // RecordFunction's handle, 0 if it has none
  int64_t sequence = -1;     // autograd's number, -1 if there is none
  uint64_t forward_thread = 0;
  std::string_view stack = {};   // call sites, innermost first, separated by semicolons; may be empty
  std::string_view module = {};  // path of the innermost module that ran the op; may be empty
  std::string_view inputs = {};  // more members of args as JSON text: "Input Dims": [...], ...; may be empty
};

// An allocation (bytes > 0) or release.
struct MemoryEvent {
  int64_t time_ns = 0;
  int64_t thread = 0;
  uint64_t address = 0;
  int64_t bytes = 0;
  uint64_t total_allocated = 0;
  uint64_t total_reserved = 0;
  int device_type = 0;  // c10::DeviceType
  int device_index = -1;
};

// Anything that Kineto or CUPTI reports: kernels, copies, runtime calls. The track is (process, thread): for work on a
// device the device's index and the stream.
struct ActivityEvent {
  std::string_view category;  // kernel, gpu_memcpy, cuda_runtime, ...
  std::string_view name;
  int64_t start_ns = 0;
  int64_t end_ns = 0;
  int64_t process = 0;
  int64_t thread = 0;
  int lane = 0;                // see Lanes
  bool device = false;         // runs on a device
  std::string_view args = {};  // members of args as JSON text
};

// Lane n of a track is the thread number + n * kLaneStride, which no stream or thread has.
constexpr int64_t kLaneStride = 10000000;

// Puts events that overlap, or that overlap without nesting, on further tracks. Events of one track should come in order of
// their start, longer ones first where starts are equal; one that comes late goes to a lane where nothing began after it.
class Lanes {
 public:
  enum Rule {
    kNested,  // one event may lie inside another
    kApart,   // no two events at the same time
  };
  explicit Lanes(Rule rule = kNested) : rule_(rule) {}

  // Returns 0 for the track's own lane, n for its n-th extra one.
  int place(int64_t process, int64_t thread, int64_t start_ns, int64_t end_ns);

 private:
  struct Lane {
    int64_t last_start = INT64_MIN;
    std::vector<int64_t> ends;  // of the events that are open at the last start
  };
  Rule rule_;
  std::map<std::pair<int64_t, int64_t>, std::vector<Lane>> tracks_;
};

// Not thread-safe; may be handed from thread to thread. Every function throws what OutputFile throws.
class TraceWriter {
 public:
  // Creates the file with the header in it. start_ns is when recording began. environment: members for the header
  // beyond those that config implies, such as versions.
  TraceWriter(const RecorderConfig& config, int64_t start_ns, const nlohmann::json& environment);

  // Each writes one event. Ops of one thread must come in the order that Lanes needs, or be known to nest.
  void op(const HostEvent& event);
  // A memory event also moves the counter of its device, at most once in kCounterPeriodNs.
  void memory(const MemoryEvent& event);
  void activity(const ActivityEvent& event);
  // One end of an arrow; id is unique within the file, name is its category.
  void flow(std::string_view name, uint64_t id, bool start, int64_t time_ns, int64_t process, int64_t thread);
  // Names a process that is not this one, such as a device, and places it in the list of processes.
  void process_name(int64_t process, std::string_view name, std::string_view label, int64_t sort_index);
  // The name of a host thread, for when it has ended before its track is named. The writer itself names these tracks.
  void thread_name(int64_t thread, std::string_view name);
  // Names a track that is not a host thread's.
  void track_name(int64_t process, int64_t thread, std::string_view name, int64_t sort_index);

  // A mark across all tracks.
  void mark(std::string_view name, int64_t time_ns);

  // Whoever reads the unfinished file from now on finds all events that were given until now.
  void flush();

  // About how large the file would be if it were closed now: rather too large than too small.
  int64_t expected_bytes() const;

  // Writes what closes the trace and gives the file its name. totals goes to the end as "omniTotals".
  void finish(int64_t end_ns, const nlohmann::json& totals);

  int64_t events() const { return events_; }  // ops, allocations, activities
  const OutputFile& file() const { return file_; }

 private:
  void begin_event(std::string_view phase, std::string_view category, std::string_view name);
  void place(int64_t process, int64_t thread, int64_t time_ns);
  void duration(int64_t start_ns, int64_t end_ns);
  void end_event();
  // Writes the value of a device's memory counter.
  void memory_counter(const MemoryEvent& event);
  void metadata_event(std::string_view name, int64_t process, int64_t thread, std::string_view args);
  // Names the track of a host thread, or one of its lanes, when it gets its first event.
  void host_track(int64_t track);
  // The same again, for those whose names have changed since.
  void rename_tracks();
  std::string track_label(int64_t track) const;

  // Memory changes with every op: a counter that follows each change would double the trace.
  static constexpr int64_t kCounterPeriodNs = 100000;

  struct MemoryCounter {
    MemoryEvent last;
    int64_t written_ns = INT64_MIN;  // the time of the value that was written last
  };

  OutputFile file_;
  std::string worker_;
  int64_t rank_;
  int64_t process_;
  int64_t start_ns_;
  int64_t base_ns_;
  int64_t events_ = 0;
  std::string buffer_;                                            // text that file_ has not yet got
  std::map<std::pair<int, int>, MemoryCounter> memory_counters_;  // by device
  std::unordered_map<int64_t, std::string> host_tracks_;          // labels of those that have events
  std::unordered_map<int64_t, std::string> thread_names_;         // of host threads
};

}  // namespace omni
