// Collection by torch::autograd::profiler, files by our own writers.
#include "profiler/torch_recorder.h"

#include <ATen/record_function.h>
#include <c10/util/ApproximateClock.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include <chrono>
#include <cstdlib>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <unordered_set>
#include <utility>

#include "profiler/output_file.h"
#include "profiler/report.h"
#include "profiler/table.h"
#include "profiler/torch_events.h"
#include "profiler/trace_writer.h"
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

class TorchRecorder final : public Recorder {
 public:
  explicit TorchRecorder(RecorderConfig recorder_config) : Recorder(std::move(recorder_config)) {
    keep_kineto_quiet();
    const RecorderConfig& c = config();
    // Before anything records, so that a folder that cannot be written to is an error of the start.
    if (!c.trace_path.empty()) trace_.emplace(c, c10::getTime(), trace_environment());
    // with_stack means modules here, which the writers find in the annotations: torch would look for Python frames.
    const impl::ProfilerConfig profiler_config(impl::ProfilerState::KINETO, c.record_shapes || c.with_flops,
                                               c.with_memory, /*with_stack=*/false, c.with_flops,
                                               /*with_modules=*/false, {}, c.session + "-" + c.worker);
    std::set<impl::ActivityType> activities = {impl::ActivityType::CPU};
    if (c.cuda) activities.insert(impl::ActivityType::CUDA);
    api::prepareProfiler(profiler_config, activities);
    std::unordered_set<at::RecordScope> scopes;  // none: all
    if (c.modules_only) scopes.insert(at::RecordScope::USER_SCOPE);
    api::enableProfiler(profiler_config, activities, scopes);
  }

  ~TorchRecorder() override {
    step_.reset();
    // Only a caller that breaks the rules frees a recorder while it records; without this, torch's profiler would
    // stay on and no other could ever start.
    if (!stopped_) {
      try {
        api::disableProfiler();
      } catch (const std::exception&) {
        // There is nobody to tell, and nothing of it to keep.
        stopped_ = true;
      }
    }
  }

 private:
  void on_step_begin(int64_t number) override {
    step_ = std::make_unique<at::RecordFunction>(at::RecordScope::USER_SCOPE);
    if (step_->isActive()) step_->before("ProfilerStep#" + std::to_string(number));
  }

  void on_step_end() override { step_.reset(); }

  void on_stop() override {
    stopped_ = true;
    end_ns_ = c10::getTime();
    result_ = api::disableProfiler();
    if (result_ == nullptr) throw Error(OMNI_INTERNAL, "torch's profiler was stopped by someone else");
  }

  nlohmann::json on_finish() override {
    const auto began = std::chrono::steady_clock::now();
    // Freed here, on the caller's thread, also when writing fails: destroying a million events takes a second.
    const std::unique_ptr<api::ProfilerResult> result = std::move(result_);
    FinishedFiles files(config());
    TableBuilder table;
    files.events = write_torch_events(*result, config(), trace_ ? &*trace_ : nullptr, table);
    files.steps = steps();
    if (trace_) files.finish_trace(*trace_, end_ns_);
    if (!config().table_path.empty()) files.write_table(table);
    files.write_ms =
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - began).count();
    return files.json();
  }

  std::optional<TraceWriter> trace_;
  std::unique_ptr<at::RecordFunction> step_;  // the open step
  bool stopped_ = false;
  int64_t end_ns_ = 0;
  std::unique_ptr<api::ProfilerResult> result_;
};

}  // namespace

std::unique_ptr<Recorder> start_torch_recorder(RecorderConfig config) {
  return std::make_unique<TorchRecorder>(std::move(config));
}

}  // namespace omni
