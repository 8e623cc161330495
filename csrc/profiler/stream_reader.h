// Reads the records of a session and turns them into trace and table while the session runs.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cuda/activity_writer.h"
#include "cuda/annotation_spans.h"
#include "profiler/recorder.h"
#include "profiler/stream_clock.h"
#include "profiler/stream_inputs.h"
#include "profiler/stream_log.h"
#include "profiler/table.h"
#include "profiler/trace_writer.h"

namespace omni::stream {

// One per session; used by the session's writer thread only, except where said. trace may be null.
//
// It fills the session's budget when the trace has become as large as config allows: events that begin later, among them
// those that were recorded already, are refused.
class Reader {
 public:
  Reader(const RecorderConfig& config, Session& session, TraceWriter* trace, TableBuilder& table);

  // Leaves out what has ended before a moment in Unix time. Before the first read. The records of a window begin
  // anywhere: ends without a beginning are taken for ops that began earlier.
  void begin_window(int64_t from_ns);

  // Takes the records of one thread, which follow those it was given before.
  void read(const Filled& filled);

  // Ends what is still open at the given time.
  void finish(uint64_t end_counter);

  int64_t unix_ns(uint64_t counter) const { return clock_.unix_ns(counter); }
  // What is in the trace: events of the host, activities of GPUs and the spans of annotations there.
  int64_t events() const { return events_ + gpu_.events(); }
  // What the collector of GPU activity has lost, and what of it could not be written, by reason.
  std::map<std::string, int64_t> gpu_dropped() const;
  int64_t steps() const { return steps_; }
  // Events whose names are lost: there were too many.
  int64_t unnamed() const { return unnamed_; }
  // Ends without a beginning, because that was dropped or lies before the session.
  int64_t unmatched() const { return unmatched_; }

 private:
  struct Name {
    std::string text;
    size_t row;        // in the table, as an op
    size_t note;       // in the table, as an annotation
    bool has_flops;    // an op whose operations are counted
    std::string site;  // where the scope of that name stands
  };

  // What has begun and not ended.
  struct Frame {
    Kind kind = Kind::kOpBegin;
    bool annotation = false;
    bool utility = false;   // in the trace but not in the table
    bool refused = false;   // in neither
    bool in_table = false;  // the table knows that it has begun
    bool cut = false;       // a step whose end is not recorded
    uint64_t serial = 0;    // of a scope
    uint64_t external_id = 0;
    uint32_t name = 0;
    int64_t number = 0;  // of a step
    int64_t start_ns = 0;
    int64_t sequence = -1;
    uint64_t forward_thread = 0;
    uint64_t flops = 0;
    uint32_t module = kNoModule;  // the innermost scope around it
    uint64_t annotation_id = 0;   // in annotations_: its own, or that of the innermost around it
    std::string inputs;           // JSON text
    std::string stack;            // of an annotation: its call site and those around it
  };
  static constexpr uint32_t kNoModule = UINT32_MAX;

  // An op that a GPU was told of, for work that comes later.
  struct Launcher {
    uint64_t external_id = 0;
    uint64_t caller = 0;      // external id of the op around it; 0: none
    size_t row = 0;           // in the table; kNoRow: it is not there
    uint64_t annotation = 0;  // the innermost around it
  };
  static constexpr size_t kLaunchers = size_t{1} << 16;  // the last ones
  // What GPUs did for an op whose record has not come yet: its thread fills a chunk before it hands that over.
  struct Launched {
    int64_t device_ns = 0;
    cuda::StreamSpans spans;
  };

  // The state of one thread's log. Frames beyond depth are kept for their strings' memory.
  struct Thread {
    int64_t thread = 0;
    uint64_t last_counter = 0;  // of its last record
    bool in_window = false;
    std::vector<Frame> frames;
    size_t depth = 0;
    std::vector<int64_t> async_ends;  // of the extra lanes: when the last event there ended
  };

  // Begins to take the thread's events; those that are open belong to them.
  void enter_window(Thread& thread, uint32_t log);
  // Whether the trace has no room for one more event, which then counts as refused.
  bool refuse();
  void begin(Thread& thread, uint32_t log, const Header& header, const std::byte* payload);
  void end_op(Thread& thread, uint32_t log, int64_t end_ns);
  void end_step(Thread& thread, uint32_t log, int64_t end_ns);
  // Ends a step where the recording ends.
  void cut_step(Thread& thread, uint32_t log, size_t frame, int64_t end_ns);
  void end_scope(uint32_t log, uint64_t serial, int64_t end_ns, bool same_thread);
  void memory(Thread& thread, uint32_t log, const Header& header, const std::byte* payload);
  void gpu_record(const Header& header, const std::byte* payload);
  // Adds work of a GPU to the table, to its own row and to those of the ops in which it was launched, and to the
  // annotations around these.
  void device_work(const cuda::ActivityWriter::DeviceWork& work);
  void belongs_to(const Launcher& op, int64_t device_ns);
  // An op that was told to the GPU has come.
  void launcher_came(const Launcher& op);
  // Writes the event of frame and takes it from the stack.
  void close(Thread& thread, uint32_t log, size_t frame, int64_t end_ns, bool async);
  // Of the thread's frames from this one on, those that the table has.
  static size_t in_table(const Thread& thread, size_t from);
  void write(Thread& thread, const Frame& frame, int64_t end_ns, bool async);
  // The call sites of the annotation that begins above the thread's open frames.
  void set_stack(const Thread& thread, Frame& frame);
  size_t row_of(const Frame& frame);
  Launcher& launcher(uint64_t external_id);
  const Name& name(uint32_t id);
  std::string_view frame_name(const Frame& frame);

  const RecorderConfig& config_;
  Session& session_;
  TraceWriter* trace_;
  TableBuilder& table_;
  Clock clock_;
  int64_t window_ns_ = INT64_MIN;
  bool trace_full_ = false;
  std::deque<Name> names_;  // whose texts stay where they are
  std::unordered_map<uint32_t, Thread> threads_;
  // Ends that came before their beginning: of a scope that ended on another thread, whose records were sooner here.
  std::map<std::pair<uint32_t, uint64_t>, int64_t> early_ends_;
  std::string step_name_;
  InputTexts inputs_;
  uint64_t next_id_ = 1;
  std::vector<Launcher> launchers_;                  // empty while there is no GPU
  std::unordered_map<uint64_t, Launched> launched_;  // by the op's external id
  cuda::ActivityWriter gpu_;
  cuda::AnnotationSpans annotations_;
  std::map<std::string, int64_t> gpu_lost_;
  int64_t events_ = 0;
  int64_t steps_ = 0;
  int64_t unmatched_ = 0;
  int64_t unnamed_ = 0;
};

}  // namespace omni::stream
