// Callbacks, session and writer thread.
#include "profiler/stream_recorder.h"

#include <ATen/record_function.h>
#include <c10/util/ApproximateClock.h>
#include <torch/csrc/profiler/orchestration/observer.h>

#include <chrono>
#include <exception>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "profiler/report.h"
#include "profiler/stream_log.h"
#include "profiler/stream_reader.h"
#include "profiler/table.h"
#include "profiler/trace_writer.h"
#include "status.h"

namespace omni {
namespace {

namespace impl = torch::profiler::impl;
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
    log->memory({reinterpret_cast<uint64_t>(address), bytes, total_allocated, total_reserved,
                 static_cast<int32_t>(device.type()), device.index()});
  }
};

class StreamRecorder final : public Recorder {
 public:
  explicit StreamRecorder(RecorderConfig recorder_config)
      : Recorder(std::move(recorder_config)), files_(config()) {
    const RecorderConfig& c = config();
    start_ns_ = c10::getTime();
    if (!c.trace_path.empty()) trace_.emplace(c, start_ns_, trace_environment());
    session_ = Hub::get().open();
    try {
      reader_.emplace(c, *session_, trace_ ? &*trace_ : nullptr, table_);
      writer_ = std::thread([this] { write(); });
    } catch (...) {
      Hub::get().close();
      throw;
    }
    const bool inputs = c.record_shapes || c.with_flops;
    at::RecordFunctionCallback callback(inputs ? &on_begin<true> : &on_begin<false>, &on_end);
    if (c.modules_only) callback.scopes({at::RecordScope::USER_SCOPE});
    callback_ = at::addThreadLocalCallback(callback.needsInputs(inputs));
    if (c.with_memory) impl::ProfilerStateBase::push(std::make_shared<MemoryObserver>());
  }

  ~StreamRecorder() override {
    if (session_) {
      abandoned_ = true;
      if (callback_ != at::INVALID_CALLBACK_HANDLE) end_collection();
      join();
    }
  }

 private:
  void on_step_begin(int64_t number) override {
    if (ThreadLog* const log = ThreadLog::current()) log->step_begin(number);
  }

  void on_step_end() override {
    if (ThreadLog* const log = ThreadLog::current()) log->step_end();
  }

  void on_stop() override { end_collection(); }

  nlohmann::json on_finish() override {
    join();
    if (error_) std::rethrow_exception(error_);
    reader_->finish(end_counter_);
    files_.events = reader_->events();
    files_.steps = steps();
    if (dropped_ > 0) files_.dropped["buffer"] = dropped_;
    if (reader_->unmatched() > 0) files_.dropped["unmatched"] = reader_->unmatched();
    if (trace_) files_.finish_trace(*trace_, reader_->unix_ns(end_counter_));
    if (!config().table_path.empty()) files_.write_table(table_);
    files_.write_ms =
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - stopped_).count();
    return files_.json();
  }

  void end_collection() {
    at::removeCallback(std::exchange(callback_, at::INVALID_CALLBACK_HANDLE));
    if (config().with_memory) impl::ProfilerStateBase::pop(/*global=*/false);
    stopped_ = std::chrono::steady_clock::now();
    end_counter_ = c10::getApproximateTime();
    Hub::get().close();
  }

  void join() {
    if (writer_.joinable()) writer_.join();
    dropped_ = session_->dropped();
    session_.reset();
    Hub::get().trim();
  }

  // The writer thread.
  void write() noexcept {
    stream::Filled filled;
    while (session_->next(filled)) {
      try {
        if (!error_ && !abandoned_) reader_->read(filled);
      } catch (...) {
        error_ = std::current_exception();  // a full disk; ops go on, and their records are thrown away
      }
      Hub::get().recycle(std::move(filled.chunk));
    }
  }

  at::CallbackHandle callback_ = at::INVALID_CALLBACK_HANDLE;
  std::shared_ptr<stream::Session> session_;
  int64_t start_ns_ = 0;

  uint64_t end_counter_ = 0;  // when collection ended
  std::chrono::steady_clock::time_point stopped_;
  int64_t dropped_ = 0;

  std::atomic<bool> abandoned_{false};

  // The writer thread's until it is joined.
  std::optional<TraceWriter> trace_;
  TableBuilder table_;
  std::optional<stream::Reader> reader_;
  FinishedFiles files_;
  std::exception_ptr error_;
  std::thread writer_;
};

}  // namespace

std::unique_ptr<Recorder> start_stream_recorder(RecorderConfig config) {
  return std::make_unique<StreamRecorder>(std::move(config));
}

}  // namespace omni
