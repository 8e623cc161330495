// A recorder profiles what one worker's torch thread does and leaves a trace and a table behind. This is the interface
// that the C functions call; the recorders themselves are chosen by name in recorder.cc.
#pragma once

#include <ATen/record_function.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "profiler/budget.h"

namespace omni {

// What omni_recorder_start was given, decoded and checked.
struct RecorderConfig {
  std::string recorder = "stream";  // which recorder: "stream", "kineto" or "cuda"
  std::string session;              // "s1": names the session in the files' headers
  std::string worker;               // "stage-0"
  int64_t stage = 0;
  int64_t rank = 0;  // unique over all workers of the pipeline: viewers tell files apart by it
  int64_t world_size = 1;
  std::string trace_path;  // final names; files are written beside them as .tmp and renamed. Empty: no trace.
  std::string table_path;  // empty: no table
  int64_t base_time_ns = 0;   // Unix time on whose day the trace's times are based; 0: when recording begins
  bool modules_only = false;  // detail is "modules": annotations, no ops
  bool record_shapes = false;
  bool with_stack = false;  // each op carries the path of the module that ran it
  bool with_flops = false;
  bool with_memory = false;
  bool use_gzip = true;
  bool cuda = false;            // activities contain "CUDA"
  int64_t max_events = 0;       // 0: no limit
  int64_t max_trace_bytes = 0;  // of the file as it is written, compressed or not; 0: no limit
  double ring_seconds =
      0;  // keep so much of the past in memory and write only what dump() asks for; 0: write all
  nlohmann::json metadata = nlohmann::json::object();  // copied into the trace's header

  // Throws INVALID_ARGUMENT that names the key, also for unknown keys.
  static RecorderConfig parse(const nlohmann::json& config);
  // This configuration with the files and session of a dump: see omni_recorder_dump.
  RecorderConfig for_dump(const nlohmann::json& config) const;
};

// One recording from start to files. It records from its creation (start_recorder) to stop().
//
// Threads: [torch thread] marks what must be called on the thread that runs the ops, which is the thread that called
// start_recorder. Everything else may run on any other thread, so that the torch thread can go on. status() may be called
// at any time between, and finish() may run while stop() takes down what a cut has left; the caller sees to it that no
// other two calls meet.
// Order: (step_begin step_end)* stop finish, where stop() closes what is open; or (step_begin step_end)* cut, and then
// stop() and finish(). Anything else throws FAILED_PRECONDITION.
// At most one recorder of a process is between start and stop; others may be finishing meanwhile.
class Recorder {
 public:
  // Drops what is held and removes unfinished files. After stop().
  virtual ~Recorder();
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  // [torch thread] Opens the annotation ProfilerStep#number, and closes it. Steps do not nest.
  void step_begin(int64_t number);
  void step_end();

  // [torch thread] Opens an annotation of any name, and closes it. One at a time; for what happens between steps.
  void scope_begin(std::string_view name);
  void scope_end();

  // [torch thread] Says where in the caller's program the annotations of that name are opened that follow; "ProfilerStep"
  // stands for all steps. Forgotten unless this recorder is with_stack.
  void call_site(std::string_view name, std::string_view site);

  // Any thread. Ends collection at once, in the middle of whatever the torch thread does: nothing that begins later is
  // recorded, and what is open ends here in the files. An open step did not happen as a whole: it does not count and is
  // called "cut ProfilerStep#N". Throws UNIMPLEMENTED if this recorder ends on its torch thread alone, and goes on.
  void cut();

  // [torch thread] Ends collection, unless it was cut, and takes away what recorded on this thread. If this throws, the
  // recorder does not record any more and holds nothing.
  void stop();

  // Any thread, once, after stop or cut: writes and closes the files, frees the events and returns
  // {"files":[{"path","kind":"trace|table","bytes"}],"events":N,"steps":N,"dropped":{reason:N},"write_ms":X,
  // "overhead_ns":N,"wall_ns":N}.
  nlohmann::json finish();

  // Any thread, of a ring: what it holds, as a recorder that has been stopped. The ring goes on. What is open ends here
  // in the dump, as after cut(). The configuration is that of omni_recorder_dump.
  std::unique_ptr<Recorder> dump(const nlohmann::json& config);

  // Any thread.
  virtual RecorderStatus status() const = 0;

 protected:
  // Records from now on.
  explicit Recorder(RecorderConfig config);
  // Has been stopped.
  struct Stopped {};
  Recorder(RecorderConfig config, Stopped);

  virtual void on_step_begin(int64_t number) = 0;
  virtual void on_step_end() = 0;
  // Ends collection and takes away what recorded.
  virtual void on_stop() = 0;
  // The halves of on_stop: the first on any thread, the second on the torch thread.
  virtual void on_cut();
  virtual void on_detach() {}
  virtual nlohmann::json on_finish() = 0;
  // Only called if the configuration asks for a ring.
  virtual std::unique_ptr<Recorder> on_dump(RecorderConfig config);

  const RecorderConfig& config() const { return config_; }
  int64_t steps() const { return steps_; }  // completed ones
  bool is_recording() const { return state_ == State::kRecording; }

 private:
  friend std::unique_ptr<Recorder> start_recorder(const nlohmann::json& config);
  enum class State { kRecording, kStopped, kFinished };

  // Throws unless it records.
  void require_recording(const char* call) const;

  RecorderConfig config_;
  std::atomic<State> state_;
  bool attached_;  // start_recorder has been called and stop() has not
  bool step_open_ = false;
  int64_t steps_ = 0;
  std::unique_ptr<at::RecordFunction> scope_;  // the open one
};

// [torch thread] Creates the recorder that config names and begins to record. config: see omni_recorder_start.
std::unique_ptr<Recorder> start_recorder(const nlohmann::json& config);

}  // namespace omni
