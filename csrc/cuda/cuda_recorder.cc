// Ranges around steps and module scopes.
#include "cuda/cuda_recorder.h"

#include <ATen/record_function.h>
#include <c10/util/ApproximateClock.h>

#include <atomic>
#include <string>
#include <utility>

#include "cuda/activity.h"
#include "runtime/cuda.h"
#include "status.h"

namespace omni {
namespace {

// The plugin's, while a recorder of this kind records: callbacks carry no context of their own. Never freed.
std::atomic<cuda::Ranges*> ranges{nullptr};
std::atomic<int64_t> opened{0};  // ranges of this recording

std::unique_ptr<at::ObserverContext> on_range_begin(const at::RecordFunction& fn) {
  if (auto* const open = ranges.load(std::memory_order_relaxed)) {
    open->push(fn.name());
    opened.fetch_add(1, std::memory_order_relaxed);
  }
  return nullptr;
}

// Also for a scope that was open when the recording ended.
void on_range_end(const at::RecordFunction&, at::ObserverContext*) {
  if (auto* const open = ranges.load(std::memory_order_relaxed)) open->pop();
}

class CudaRecorder final : public Recorder {
 public:
  CudaRecorder(RecorderConfig recorder_config, cuda::Ranges& marks)
      : Recorder(std::move(recorder_config)), marks_(marks) {
    if (const std::string error = marks.start_tool(); !error.empty())
      throw Error(OMNI_INTERNAL, "recorder \"cuda\": " + error);
    opened = 0;
    ranges = &marks;
    callback_ = at::addThreadLocalCallback(
        at::RecordFunctionCallback(&on_range_begin, &on_range_end).scopes({at::RecordScope::USER_SCOPE}));
  }

  ~CudaRecorder() override {
    if (callback_ != at::INVALID_CALLBACK_HANDLE) end();
  }

  RecorderStatus status() const override {
    RecorderStatus status;
    status.events = opened;
    return status;
  }

 private:
  void on_step_begin(int64_t number) override {
    marks_.push(("ProfilerStep#" + std::to_string(number)).c_str());
  }
  void on_step_end() override { marks_.pop(); }

  void on_stop() override {
    if (const std::string error = end(); !error.empty())
      throw Error(OMNI_INTERNAL, "recorder \"cuda\": " + error);
  }

  nlohmann::json on_finish() override {
    return {{"files", nlohmann::json::array()},
            {"events", opened.load()},
            {"steps", steps()},
            {"dropped", nlohmann::json::object()},
            {"write_ms", 0},
            {"wall_ns", c10::getTime() - start_ns_},
            {"overhead_ns", 0}};
  }

  std::string end() {
    at::removeCallback(std::exchange(callback_, at::INVALID_CALLBACK_HANDLE));
    ranges = nullptr;
    return marks_.stop_tool();
  }

  cuda::Ranges& marks_;
  const int64_t start_ns_ = c10::getTime();
  at::CallbackHandle callback_ = at::INVALID_CALLBACK_HANDLE;
};

}  // namespace

std::unique_ptr<Recorder> start_cuda_recorder(RecorderConfig config) {
  return start_cuda_recorder(std::move(config), *require_cuda_plugin("recorder \"cuda\"").ranges);
}

std::unique_ptr<Recorder> start_cuda_recorder(RecorderConfig config, cuda::Ranges& marks) {
  return std::make_unique<CudaRecorder>(std::move(config), marks);
}

}  // namespace omni
