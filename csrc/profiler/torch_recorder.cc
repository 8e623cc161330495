// Collection by torch::autograd::profiler, files by our own writers.
#include "profiler/torch_recorder.h"

#include <ATen/record_function.h>
#include <c10/util/ApproximateClock.h>
#include <torch/csrc/autograd/profiler_kineto.h>
#include <torch/csrc/profiler/orchestration/observer.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <unordered_set>
#include <utility>

#include "cuda/activity_writer.h"
#include "profiler/budget.h"
#include "profiler/op_cost.h"
#include "profiler/output_file.h"
#include "profiler/report.h"
#include "profiler/table.h"
#include "profiler/torch_events.h"
#include "profiler/trace_writer.h"
#include "runtime/cuda.h"
#include "status.h"

namespace omni {
namespace {

namespace api = torch::autograd::profiler;
namespace impl = torch::profiler::impl;

// Kineto writes its own progress, and complaints about a missing GPU, to stderr, where they would look like faults of
// the worker. It reads this variable when it is first used; a user's own value stays.
void keep_kineto_quiet() {
  static std::once_flag once;
  std::call_once(once, [] { ::setenv("KINETO_LOG_LEVEL", "99", 0); });
}

// Counts what torch's profiler records, which tells nobody before it has ended. A callback has no object, and at most
// one recorder of a process records.
std::atomic<int64_t> recorded{0};

std::unique_ptr<at::ObserverContext> count_op(const at::RecordFunction& /*fn*/) {
  recorded.fetch_add(1, std::memory_order_relaxed);
  return nullptr;
}

// A recording that has ended, still in the form in which torch's profiler collected it. Bringing that into order takes
// microseconds an event, so it happens on the thread that writes the files; unless the next recording begins sooner, which
// has to wait for it because Kineto does one thing at a time.
class Collected {
 public:
  // [torch thread] Takes the running profiler from the thread: nothing more is recorded.
  Collected() : state_(impl::ProfilerStateBase::pop(/*global=*/false)) {
    if (state_ == nullptr) throw Error(OMNI_INTERNAL, "torch's profiler was stopped by someone else");
    state_->removeCallback();
  }
  ~Collected() { settle(); }
  Collected(const Collected&) = delete;
  Collected& operator=(const Collected&) = delete;

  // Any thread. Brings the recording into order, unless that has been done. An error of Kineto's is kept for take().
  void settle() noexcept {
    const std::lock_guard lock(mutex_);
    if (state_ == nullptr) return;
    try {
      // Torch disables the profiler of the calling thread, and does not mind which thread that is.
      impl::ProfilerStateBase::push(std::move(state_));
      result_ = api::disableProfiler();
    } catch (...) {
      error_ = std::current_exception();
    }
    state_ = nullptr;
  }

  // Any thread, once.
  std::unique_ptr<api::ProfilerResult> take() {
    settle();
    const std::lock_guard lock(mutex_);
    if (error_) std::rethrow_exception(error_);
    return std::move(result_);
  }

 private:
  std::mutex mutex_;  // guards what follows
  std::shared_ptr<impl::ProfilerStateBase> state_;
  std::unique_ptr<api::ProfilerResult> result_;
  std::exception_ptr error_;
};

// The last recording that has ended, for the next to wait for.
class LastCollected {
 public:
  static void set(const std::shared_ptr<Collected>& collected) {
    const std::lock_guard lock(mutex());
    last() = collected;
  }
  static void settle() {
    std::shared_ptr<Collected> collected;
    {
      const std::lock_guard lock(mutex());
      collected = last().lock();
    }
    if (collected) collected->settle();
  }

 private:
  static std::mutex& mutex() {
    static std::mutex guards_last;
    return guards_last;
  }
  static std::weak_ptr<Collected>& last() {
    static std::weak_ptr<Collected> collected;
    return collected;
  }
};

// Torch's profiler cannot be limited while it runs. So the budget closes what can be seen from outside, status(), as soon
// as max_events ops have run, and the files when they are written.
class TorchRecorder final : public Recorder {
 public:
  explicit TorchRecorder(RecorderConfig recorder_config)
      : Recorder(std::move(recorder_config)), budget_(config().max_events) {
    keep_kineto_quiet();
    const RecorderConfig& c = config();
    // Before anything records, so that a folder that cannot be written to is an error of the start.
    if (!c.trace_path.empty()) {
      nlohmann::json environment = trace_environment();
      const cuda::Plugin* const plugin = c.cuda ? open_cuda().plugin : nullptr;
      if (plugin != nullptr)
        environment.update(cuda::environment_json(cuda::environment_of(*plugin->activities)));
      trace_.emplace(c, c10::getTime(), environment);
    }
    // with_stack means modules here, which the writers find in the annotations: torch would look for Python frames.
    const impl::ProfilerConfig profiler_config(impl::ProfilerState::KINETO, c.record_shapes || c.with_flops,
                                               c.with_memory, /*with_stack=*/false, c.with_flops,
                                               /*with_modules=*/false, {}, c.session + "-" + c.worker);
    std::set<impl::ActivityType> activities = {impl::ActivityType::CPU};
    if (c.cuda) activities.insert(impl::ActivityType::CUDA);
    std::unordered_set<at::RecordScope> scopes;  // none: all
    if (c.modules_only) scopes.insert(at::RecordScope::USER_SCOPE);
    // The cost of an op is measured on one that does nothing, before and after; what that records is left out.
    constexpr int kBlocks = 9;
    const double without_ns = trivial_op_ns(kBlocks);
    LastCollected::settle();
    api::prepareProfiler(profiler_config, activities);
    api::enableProfiler(profiler_config, activities, scopes);
    at::RecordFunctionCallback counter(&count_op);
    if (c.modules_only) counter.scopes(scopes);
    counter_ = at::addThreadLocalCallback(counter);
    cost_ns_ = std::max(0.0, trivial_op_ns(kBlocks) - without_ns);
    recorded = 0;
    // Torch converts its times afterwards and may be off by a few microseconds: leave a gap on both sides.
    constexpr int64_t kGapNs = 10000;
    start_ns_ = c10::getTime() + kGapNs;
    while (c10::getTime() < start_ns_ + kGapNs) {
    }
  }

  ~TorchRecorder() override {
    step_.reset();
    // Only a caller that breaks the rules frees a recorder while it records; without this, torch's profiler would
    // stay on and no other could ever start.
    if (!stopped_) {
      try {
        at::removeCallback(counter_);
        api::disableProfiler();
      } catch (const std::exception&) {
        // There is nobody to tell, and nothing of it to keep.
        stopped_ = true;
      }
    }
  }

  RecorderStatus status() const override {
    RecorderStatus status;
    const int64_t written = events_.load(std::memory_order_relaxed);
    status.full = budget_.full();
    if (written >= 0) {
      status.events = written;
      if (budget_.refused() > 0) status.dropped[std::string(drop_reason(status.full))] = budget_.refused();
    } else {
      const int64_t limit = config().max_events;
      status.events = stopped_ ? events_at_stop_.load(std::memory_order_relaxed)
                               : recorded.load(std::memory_order_relaxed);
      if (limit > 0 && status.events >= limit) {
        status.full = Full::kEvents;
        if (status.events > limit) status.dropped["budget"] = status.events - limit;
        status.events = limit;
      }
    }
    status.trace_bytes = trace_bytes_.load(std::memory_order_relaxed);
    status.overhead_ns = overhead_ns(status.events);
    return status;
  }

 private:
  void on_step_begin(int64_t number) override {
    step_ = std::make_unique<at::RecordFunction>(at::RecordScope::USER_SCOPE);
    if (step_->isActive()) step_->before("ProfilerStep#" + std::to_string(number));
  }

  void on_step_end() override { step_.reset(); }

  void on_stop() override {
    at::removeCallback(counter_);
    events_at_stop_ = recorded.load();
    stopped_ = true;
    end_ns_ = c10::getTime();
    collected_ = std::make_shared<Collected>();
    LastCollected::set(collected_);
  }

  nlohmann::json on_finish() override {
    const auto began = std::chrono::steady_clock::now();
    // Freed here, on the caller's thread, also when writing fails: destroying a million events takes a second.
    const std::unique_ptr<api::ProfilerResult> result = collected_->take();
    FinishedFiles files(config());
    TableBuilder table;
    files.events = write_torch_events(*result, {.config = config(),
                                                .from_ns = start_ns_,
                                                .until_ns = end_ns_,
                                                .trace = trace_ ? &*trace_ : nullptr,
                                                .table = table,
                                                .budget = budget_});
    files.steps = steps();
    files.full = budget_.full();
    if (budget_.refused() > 0) files.dropped[std::string(drop_reason(files.full))] = budget_.refused();
    files.wall_ns = end_ns_ - start_ns_;
    files.overhead_ns = overhead_ns(files.events);
    if (trace_) {
      files.finish_trace(*trace_, end_ns_);
      trace_bytes_ = trace_->file().bytes_out();
    }
    if (!config().table_path.empty()) files.write_table(table);
    files.write_ms =
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - began).count();
    events_ = files.events;
    return files.json();
  }

  int64_t overhead_ns(int64_t events) const {
    return static_cast<int64_t>(cost_ns_ * static_cast<double>(events));
  }

  Budget budget_;
  std::optional<TraceWriter> trace_;
  std::unique_ptr<at::RecordFunction> step_;  // the open step
  at::CallbackHandle counter_ = at::INVALID_CALLBACK_HANDLE;
  double cost_ns_ = 0;  // of an op
  int64_t start_ns_ = 0;
  int64_t end_ns_ = 0;
  std::shared_ptr<Collected> collected_;
  // For status(), on any thread.
  std::atomic<bool> stopped_{false};
  std::atomic<int64_t> events_at_stop_{0};
  std::atomic<int64_t> events_{-1};  // written; -1 before
  std::atomic<int64_t> trace_bytes_{0};
};

}  // namespace

std::unique_ptr<Recorder> start_torch_recorder(RecorderConfig config) {
  return std::make_unique<TorchRecorder>(std::move(config));
}

}  // namespace omni
