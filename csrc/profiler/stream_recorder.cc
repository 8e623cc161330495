// Callbacks, session and writer thread.
#include "profiler/stream_recorder.h"

#include <ATen/record_function.h>
#include <c10/util/ApproximateClock.h>
#include <torch/csrc/profiler/orchestration/observer.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <ctime>
#include <exception>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cuda/gpu_collection.h"
#include "profiler/op_cost.h"
#include "profiler/stream_activities.h"
#include "profiler/stream_clock.h"
#include "profiler/stream_cost.h"
#include "profiler/stream_files.h"
#include "profiler/stream_log.h"
#include "runtime/cuda.h"
#include "status.h"

namespace omni {
namespace {

namespace impl = torch::profiler::impl;
using stream::CostPart;
using stream::CostScope;
using stream::Hub;
using stream::ThreadLog;

// Follows a scope to its end, which may be in another thread or session.
struct ScopeContext final : at::ObserverContext {
  ScopeContext(uint64_t session, uint32_t log_id, uint64_t number)
      : generation(session), log(log_id), serial(number) {}
  uint64_t generation;
  uint32_t log;
  uint64_t serial;
};

// Ops are called by torch's dispatcher, where they end in the order and thread in which they begin; so they need no
// context, whose allocation would be a tenth of the whole cost. All other scopes may be objects anywhere.
template <bool kInputs>
std::unique_ptr<at::ObserverContext> on_begin(const at::RecordFunction& fn) {
  ThreadLog* const log = ThreadLog::current();
  if (log == nullptr) return nullptr;
  const CostScope cost(log->meter(), CostPart::kBegin);
  if (fn.scope() == at::RecordScope::FUNCTION) {
    log->op_begin(fn, kInputs);
    return nullptr;
  }
  const uint64_t generation = log->generation();
  const uint64_t serial = log->scope_begin(fn, kInputs);
  return serial == 0 ? nullptr : std::make_unique<ScopeContext>(generation, log->id(), serial);
}

void on_end(const at::RecordFunction& fn, at::ObserverContext* context) {
  ThreadLog* const log = ThreadLog::current();
  if (log == nullptr) return;
  const CostScope cost(log->meter(), CostPart::kEnd);
  if (fn.scope() == at::RecordScope::FUNCTION) {
    log->op_end();
    return;
  }
  const auto* scope = static_cast<const ScopeContext*>(context);
  if (scope != nullptr && scope->generation == log->generation()) log->scope_end(scope->log, scope->serial);
}

// Takes torch's reports of allocations. It stands where torch's own profiler would, so it must be one of its kind.
class MemoryObserver final : public impl::ProfilerStateBase {
 public:
  MemoryObserver() : ProfilerStateBase(impl::ProfilerConfig(impl::ProfilerState::CPU, false, true)) {}

  impl::ActiveProfilerType profilerType() override { return impl::ActiveProfilerType::KINETO; }

  void reportMemoryUsage(void* address, int64_t bytes, size_t total_allocated, size_t total_reserved,
                         c10::Device device) override {
    ThreadLog* const log = ThreadLog::current();
    if (log == nullptr) return;
    const CostScope cost(log->meter(), CostPart::kMemory);
    log->memory({reinterpret_cast<uint64_t>(address), bytes, total_allocated, total_reserved,
                 static_cast<int32_t>(device.type()), device.index()});
  }
};

// What a ring held at one moment, on the way to its files.
class Dump final : public Recorder {
 public:
  // ring_start_ns: when the ring began to record. cost_ns: of an event.
  Dump(RecorderConfig dump_config, double ring_seconds, int64_t ring_start_ns, double cost_ns,
       const cuda::Environment& gpu)
      : Recorder(std::move(dump_config), Stopped{}),
        cost_ns_(cost_ns),
        end_counter_(c10::getApproximateTime()),
        from_ns_(std::max(ring_start_ns, c10::getTime() - static_cast<int64_t>(ring_seconds * 1e9))),
        files_(config(), from_ns_, gpu) {
    // Last, because it is what a failure would waste.
    session_ = Hub::get().snapshot();
  }

  ~Dump() override {
    session_.reset();
    Hub::get().trim();
  }

  RecorderStatus status() const override {
    const int64_t events = files_.events();
    return {.events = events,
            .dropped = stream::drops_of(*session_),
            .trace_bytes = files_.trace_bytes(),
            .overhead_ns = static_cast<int64_t>(cost_ns_ * static_cast<double>(events)),
            .full = session_->budget().full()};
  }

 private:
  void on_step_begin(int64_t /*number*/) override {}
  void on_step_end() override {}
  void on_stop() override {}

  nlohmann::json on_finish() override {
    const auto began = std::chrono::steady_clock::now();
    files_.open(*session_);
    files_.begin_window(from_ns_);
    for (stream::Filled filled; session_->next(filled);) {
      files_.read(filled);
      filled.chunk.reset();  // the ring may need it
    }
    return files_.finish({.counter = end_counter_, .overhead_ns_per_event = cost_ns_, .began = began});
  }

  const double cost_ns_;
  const uint64_t end_counter_;
  const int64_t from_ns_;
  stream::Files files_;
  std::shared_ptr<stream::Session> session_;
};

class StreamRecorder final : public Recorder {
 public:
  // gpu: the collector that is to be used, or null.
  StreamRecorder(RecorderConfig recorder_config, cuda::ActivitySource* gpu)
      : Recorder(std::move(recorder_config)),
        gpu_(gpu == nullptr ? nullptr : std::make_unique<cuda::GpuCollection>(*gpu)),
        inputs_(config().record_shapes || config().with_flops),
        dispatch_ns_(dispatch_ns(inputs_)),
        start_ns_(c10::getTime()),
        files_(config(), start_ns_, gpu_environment()) {
    const RecorderConfig& c = config();
    const double ring_ticks = c.ring_seconds * 1e9 / stream::ns_per_tick();
    session_ = Hub::get().open(
        {.max_events = c.max_events, .ring_ticks = static_cast<uint64_t>(std::ceil(ring_ticks)), .gpu = gpu});
    try {
      files_.open(*session_);
      if (gpu_ != nullptr) gpu_->feed(stream::activity_log());
      if (!session_->ring()) writer_ = std::thread([this] { write(); });
    } catch (...) {
      Hub::get().close();
      throw;
    }
    at::RecordFunctionCallback callback(inputs_ ? &on_begin<true> : &on_begin<false>, &on_end);
    if (c.modules_only) callback.scopes({at::RecordScope::USER_SCOPE});
    callback_ = at::addThreadLocalCallback(callback.needsInputs(inputs_));
    if (c.with_memory) impl::ProfilerStateBase::push(std::make_shared<MemoryObserver>());
  }

  ~StreamRecorder() override {
    abandoned_ = true;
    take_down();
    if (gpu_ != nullptr) gpu_->stop();
    if (is_recording()) end_collection();
    join();
  }

  RecorderStatus status() const override {
    const stream::Session::Tally tally = Hub::get().tally(*session_);
    std::map<std::string, int64_t> dropped = stream::drops_of(*session_);
    if (gpu_ != nullptr) dropped.merge(gpu_->dropped());
    return {.events = tally.events - session_->budget().withdrawn(),
            .dropped = std::move(dropped),
            .trace_bytes = files_.trace_bytes(),
            .overhead_ns = tally.costs.nanoseconds(dispatch_ns_),
            .full = session_->budget().full()};
  }

 private:
  void on_step_begin(int64_t number) override {
    if (ThreadLog* const log = ThreadLog::current()) log->step_begin(number);
  }

  void on_step_end() override {
    if (ThreadLog* const log = ThreadLog::current()) log->step_end();
  }

  void on_stop() override {
    take_down();
    if (gpu_ != nullptr) gpu_->stop();
    end_collection();
  }

  void on_cut() override {
    if (gpu_ != nullptr) {
      throw Error(OMNI_UNIMPLEMENTED, "cut: what GPUs do is collected until they have done it: call stop");
    }
    end_collection();
  }

  void on_detach() override { take_down(); }

  nlohmann::json on_finish() override {
    const auto began = std::chrono::steady_clock::now();
    join();
    if (error_) std::rethrow_exception(error_);
    return files_.finish({.counter = end_counter_,
                          .steps = steps(),
                          .overhead_ns_per_event = cost_ns(),
                          .writer_ns = writer_ns_,
                          .began = began});
  }

  std::unique_ptr<Recorder> on_dump(RecorderConfig dump_config) override {
    if (gpu_ != nullptr) gpu_->catch_up();
    return std::make_unique<Dump>(std::move(dump_config), config().ring_seconds, start_ns_, cost_ns(),
                                  gpu_environment());
  }

  // The GPUs that are recorded.
  cuda::Environment gpu_environment() const {
    return gpu_ == nullptr ? cuda::Environment() : gpu_->environment();
  }

  // Of an event, on average.
  double cost_ns() const {
    const stream::Session::Tally tally = Hub::get().tally(*session_);
    if (tally.events == 0) return 0;
    return static_cast<double>(tally.costs.nanoseconds(dispatch_ns_)) / static_cast<double>(tally.events);
  }

  // [torch thread] Removes what records on it.
  void take_down() {
    if (callback_ == at::INVALID_CALLBACK_HANDLE) return;
    at::removeCallback(std::exchange(callback_, at::INVALID_CALLBACK_HANDLE));
    if (config().with_memory) impl::ProfilerStateBase::pop(/*global=*/false);
  }

  // Any thread: whoever is inside a callback finds the session closed.
  void end_collection() {
    end_counter_ = c10::getApproximateTime();
    Hub::get().close();
  }

  void join() {
    if (writer_.joinable()) writer_.join();
    Hub::get().trim();
  }

  // The writer thread.
  void write() noexcept {
    constexpr auto kFlushPeriod = std::chrono::seconds(1);  // so much is lost if the process is killed
    auto flush_at = std::chrono::steady_clock::now() + kFlushPeriod;
    for (stream::Filled filled; session_->next(filled, flush_at);) {
      if (filled.chunk) write_some([&] { files_.read(filled); });
      filled.chunk.reset();
      if (std::chrono::steady_clock::now() < flush_at) continue;
      for (stream::Filled& rest : Hub::get().collect(*session_)) {
        write_some([&] { files_.read(rest); });
        rest.chunk.reset();
      }
      write_some([this] { files_.flush(); });
      flush_at = std::chrono::steady_clock::now() + kFlushPeriod;
    }
    timespec used{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    writer_ns_ = int64_t{used.tv_sec} * 1000000000 + used.tv_nsec;
  }

  template <typename Write>
  void write_some(Write write) {
    if (error_ || abandoned_) return;
    try {
      write();
    } catch (...) {
      error_ = std::current_exception();  // a full disk; ops go on, and nothing more is recorded of them
      session_->budget().fill(Full::kError);
    }
  }

  const std::unique_ptr<cuda::GpuCollection> gpu_;
  const bool inputs_;
  const double dispatch_ns_;
  const int64_t start_ns_;
  at::CallbackHandle callback_ = at::INVALID_CALLBACK_HANDLE;  // the torch thread's
  std::shared_ptr<stream::Session> session_;
  uint64_t end_counter_ = 0;  // when collection ended
  std::atomic<bool> abandoned_{false};

  // The writer thread's until it is joined.
  stream::Files files_;
  std::exception_ptr error_;
  int64_t writer_ns_ = 0;
  std::thread writer_;
};

}  // namespace

std::unique_ptr<Recorder> start_stream_recorder(RecorderConfig config) {
  cuda::ActivitySource* const source =
      config.cuda ? require_cuda_plugin("activities: CUDA").activities : nullptr;
  return start_stream_recorder(std::move(config), source);
}

std::unique_ptr<Recorder> start_stream_recorder(RecorderConfig config, cuda::ActivitySource* gpu) {
  return std::make_unique<StreamRecorder>(std::move(config), gpu);
}

}  // namespace omni
