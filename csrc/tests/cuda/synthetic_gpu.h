// A worker's trace as a GPU would have made it: records built by hand, decoded and written by the code that decodes and
// writes real ones.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cuda/activity_writer.h"
#include "cuda/annotation_spans.h"
#include "cuda/cupti_records.h"
#include "profiler/recorder.h"
#include "profiler/report.h"
#include "profiler/trace_writer.h"

namespace omni::cuda {

constexpr int64_t kSyntheticStart = 1764000000000000000;  // Unix time
constexpr int64_t kSyntheticStepNs = 1000000;
constexpr uint32_t kSyntheticStream = 7;
constexpr uint32_t kSyntheticCopies = 13;  // the stream of copies
constexpr uint32_t kSyntheticEvent = 5;
constexpr const char* kSyntheticModule = "thinker.layers.0";
constexpr const char* kSyntheticGemm = "ampere_bf16_s16816gemm_bf16_128x64_ldg8_f2f_stages_64x4_tn";
constexpr const char* kSyntheticNorm = "_ZN2at6native12_GLOBAL__N_14rmsnIfEEvPT_i";

// What one worker does, step after step. Times are nanoseconds since the step's beginning.
class SyntheticWorker {
 public:
  SyntheticWorker(const RecorderConfig& config, int64_t thread)
      : config_(config),
        thread_(thread),
        device_(static_cast<uint32_t>(config.rank)),
        trace_(config, kSyntheticStart, environment()),
        decoder_(&api_name, {test_device(0), test_device(1), test_device(2)}),
        writer_(&trace_, [](uint64_t time) { return static_cast<int64_t>(time); }),
        annotations_([this](std::string_view name, uint64_t external_id, const StreamSpan& span) {
          writer_.annotation(name, external_id, span);
        }) {
    writer_.on_device_work = [this](const ActivityWriter::DeviceWork& work) {
      annotations_.work(annotation_of_[work.launched_by], work.span);
    };
  }

  void step(int64_t number) {
    begin_ = kSyntheticStart + number * kSyntheticStepNs;
    const std::string name = "ProfilerStep#" + std::to_string(number);
    const uint64_t step = annotate(name, 0, kSyntheticStepNs - 50000, AnnotationSpans::kNone);
    std::vector<HostEvent> ops;
    copy(ops, CUPTI_ACTIVITY_MEMCPY_KIND_HTOD, CUPTI_ACTIVITY_MEMORY_KIND_PINNED,
         CUPTI_ACTIVITY_MEMORY_KIND_DEVICE, 10000, 1 << 20);
    set(ops, 60000);
    annotate(kSyntheticModule, 95000, 172000, step);
    launch(ops, "aten::linear", kSyntheticGemm, 100000, 120000, 200000);
    launch(ops, "aten::rms_norm", kSyntheticNorm, 150000, 200000, 220600);
    annotation_ = step;
    // Begins before the one before it has ended, as programmatic dependent launch does.
    launch(ops, "aten::linear", kSyntheticGemm, 180000, 220000, 320400);
    graph(ops, 350000);
    launch(ops, "aten::linear", kSyntheticGemm, 520000, 540000, 580000);
    event(560000);
    copy(ops, CUPTI_ACTIVITY_MEMCPY_KIND_DTOH, CUPTI_ACTIVITY_MEMORY_KIND_DEVICE,
         CUPTI_ACTIVITY_MEMORY_KIND_PAGEABLE, 600000, 4096);
    wait(700000, 850000);
    for (const HostEvent& op : ops) trace_.op(op);
    buffer_.decode(decoder_, writer_);
    writer_.flush();
    ++steps_;
  }

  void finish() {
    buffer_.add(overhead_record(CUPTI_ACTIVITY_OVERHEAD_CUPTI_BUFFER_FLUSH, kSyntheticStart + 1000,
                                kSyntheticStart + 5000));
    buffer_.decode(decoder_, writer_);
    writer_.flush();
    annotations_.finish();
    writer_.finish();
    FinishedFiles files(config_);
    files.events = trace_.events();
    files.steps = steps_;
    files.dropped = writer_.dropped();
    files.finish_trace(trace_, kSyntheticStart + steps_ * kSyntheticStepNs);
  }

  const ActivityWriter& writer() const { return writer_; }

 private:
  static nlohmann::json environment() {
    nlohmann::json environment = trace_environment();
    environment["deviceProperties"] =
        device_properties_json({test_device(0), test_device(1), test_device(2)});
    return environment;
  }

  // An annotation of the host, inside outer. What is launched from now on is in it. Returns its number.
  uint64_t annotate(const std::string& name, int64_t start, int64_t end, uint64_t outer) {
    trace_.op({.name = name,
               .annotation = true,
               .start_ns = begin_ + start,
               .end_ns = begin_ + end,
               .thread = thread_,
               .external_id = next_id_});
    return annotation_ = annotations_.begin(name, next_id_++, outer);
  }

  uint64_t at(int64_t ns) const { return static_cast<uint64_t>(begin_ + ns); }

  // An op on the host and in it the call with this number.
  void call(std::vector<HostEvent>& ops, const char* op, uint32_t cbid, int64_t start) {
    ops.push_back({.name = op,
                   .start_ns = begin_ + start,
                   .end_ns = begin_ + start + 20000,
                   .thread = thread_,
                   .external_id = next_id_});
    annotation_of_[next_id_] = annotation_;
    buffer_.add(external_record(correlation_ + 1, next_id_++));
    runtime(cbid, start + 2000, start + 8000);
  }

  // A call of the runtime, with a number of its own.
  void runtime(uint32_t cbid, int64_t start, int64_t end) {
    buffer_.add(api_record(CUPTI_ACTIVITY_KIND_RUNTIME, cbid, at(start), at(end),
                           static_cast<uint32_t>(::getpid()), static_cast<uint32_t>(thread_),
                           ++correlation_));
  }

  // The stream of copies waits for an event that the other one reaches after 20 us.
  void event(int64_t start) {
    runtime(CUPTI_RUNTIME_TRACE_CBID_cudaEventRecord_v3020, start, start + 1000);
    CUpti_ActivityCudaEvent2 reached =
        event_record(kSyntheticEvent, at(start + 20000), kSyntheticStream, correlation_);
    reached.deviceId = device_;
    buffer_.add(reached);
    runtime(CUPTI_RUNTIME_TRACE_CBID_cudaStreamWaitEvent_v3020, start + 2000, start + 3000);
    CUpti_ActivitySynchronization2 wait =
        sync_record(CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_STREAM_WAIT_EVENT, at(start + 2200), at(start + 2800),
                    kSyntheticCopies, correlation_);
    wait.cudaEventId = kSyntheticEvent;
    buffer_.add(wait);
  }

  template <typename Record>
  void work(Record record) {
    record.deviceId = device_;
    buffer_.add(record);
  }

  void launch(std::vector<HostEvent>& ops, const char* op, const char* kernel, int64_t call_at, int64_t start,
              int64_t end) {
    call(ops, op, CUPTI_RUNTIME_TRACE_CBID_cudaLaunchKernel_v7000, call_at);
    work(kernel_record(kernel, at(start), at(end), kSyntheticStream, correlation_));
  }

  void copy(std::vector<HostEvent>& ops, uint8_t kind, uint8_t from, uint8_t to, int64_t start,
            uint64_t bytes) {
    call(ops, "aten::copy_", CUPTI_RUNTIME_TRACE_CBID_cudaMemcpyAsync_v3020, start);
    work(memcpy_record(kind, from, to, bytes, at(start + 12000), at(start + 42000), kSyntheticCopies,
                       correlation_));
  }

  void set(std::vector<HostEvent>& ops, int64_t start) {
    call(ops, "aten::zero_", CUPTI_RUNTIME_TRACE_CBID_cudaMemsetAsync_v3020, start);
    work(memset_record(65536, at(start + 10000), at(start + 12000), kSyntheticStream, correlation_));
  }

  // One launch, three kernels, of which the last two run side by side.
  void graph(std::vector<HostEvent>& ops, int64_t start) {
    call(ops, "omni::replay", CUPTI_RUNTIME_TRACE_CBID_cudaGraphLaunch_v10000, start);
    const std::pair<int64_t, int64_t> times[] = {{10000, 60000}, {60000, 110000}, {70000, 130000}};
    uint64_t node = 0;
    for (const auto& [from, to] : times) {
      CUpti_ActivityKernel11 record =
          kernel_record(kSyntheticGemm, at(start + from), at(start + to), kSyntheticStream, correlation_);
      record.graphId = 3;
      record.graphNodeId = (uint64_t{3} << 32) + ++node;
      work(record);
    }
  }

  void wait(int64_t start, int64_t end) {
    runtime(CUPTI_RUNTIME_TRACE_CBID_cudaStreamSynchronize_v3020, start, end);
    buffer_.add(sync_record(CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_STREAM_SYNCHRONIZE, at(start + 1000),
                            at(end - 1000), kSyntheticStream, correlation_));
  }

  RecorderConfig config_;
  int64_t thread_;
  uint32_t device_;
  TraceWriter trace_;
  CuptiDecoder decoder_;
  ActivityWriter writer_;
  AnnotationSpans annotations_;
  std::map<uint64_t, uint64_t> annotation_of_;  // by the op's external id
  uint64_t annotation_ = AnnotationSpans::kNone;
  RecordBuffer buffer_;
  int64_t begin_ = 0;
  int64_t steps_ = 0;
  uint64_t next_id_ = 1;
  uint32_t correlation_ = 0;
};

// The three workers of a pipeline, each on a device of its own. Returns the paths of their traces.
inline std::vector<std::string> write_synthetic_gpu_traces(const std::string& folder, int64_t steps) {
  std::vector<std::string> paths;
  for (int64_t stage = 0; stage < 3; ++stage) {
    RecorderConfig config;
    config.recorder = "stream";
    config.session = "s1";
    config.worker = "stage-" + std::to_string(stage);
    config.stage = config.rank = stage;
    config.world_size = 3;
    config.cuda = true;
    config.base_time_ns = kSyntheticStart;
    config.trace_path =
        folder + "/" + config.worker + "_s1." + std::to_string(kSyntheticStart + stage) + ".pt.trace.json.gz";
    SyntheticWorker worker(config, ::getpid());
    for (int64_t step = 0; step < steps; ++step) worker.step(step);
    worker.finish();
    paths.push_back(config.trace_path);
  }
  return paths;
}

}  // namespace omni::cuda
