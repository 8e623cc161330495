// Reading, and closing the files.
#include "profiler/stream_files.h"

#include <algorithm>
#include <chrono>

namespace omni::stream {

Files::Files(const RecorderConfig& config, int64_t start_ns, const cuda::Environment& gpu)
    : config_(config), start_ns_(start_ns), files_(config) {
  if (config.trace_path.empty()) return;
  nlohmann::json environment = trace_environment();
  environment.update(cuda::environment_json(gpu));
  trace_.emplace(config, start_ns, environment);
}

void Files::open(Session& session) {
  session_ = &session;
  reader_.emplace(config_, session, trace_ ? &*trace_ : nullptr, table_);
}

void Files::begin_window(int64_t from_ns) {
  start_ns_ = std::max({start_ns_, from_ns, reader_->unix_ns(session_->complete_since())});
  reader_->begin_window(start_ns_);
}

void Files::read(const Filled& filled) {
  reader_->read(filled);
  publish();
}

void Files::flush() {
  if (trace_) trace_->flush();
  publish();
}

nlohmann::json Files::finish(const End& end) {
  reader_->finish(end.counter);
  const int64_t end_ns = reader_->unix_ns(end.counter);
  files_.events = reader_->events();
  files_.steps = end.steps < 0 ? reader_->steps() : end.steps;
  files_.dropped = drops_of(*session_);
  files_.dropped.merge(reader_->gpu_dropped());
  if (reader_->unmatched() > 0) files_.dropped["unmatched"] = reader_->unmatched();
  if (reader_->unnamed() > 0) files_.dropped["names"] = reader_->unnamed();
  files_.full = session_->budget().full();
  files_.wall_ns = std::max<int64_t>(end_ns - start_ns_, 0);
  files_.overhead_ns = static_cast<int64_t>(end.overhead_ns_per_event * static_cast<double>(files_.events));
  files_.writer_ns = end.writer_ns;
  if (trace_) files_.finish_trace(*trace_, end_ns);
  if (!config_.table_path.empty()) files_.write_table(table_);
  files_.write_ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - end.began).count();
  publish();
  return files_.json();
}

void Files::publish() {
  events_.store(reader_->events(), std::memory_order_relaxed);
  if (trace_) trace_bytes_.store(trace_->file().bytes_out(), std::memory_order_relaxed);
}

std::map<std::string, int64_t> drops_of(const Session& session) {
  std::map<std::string, int64_t> dropped;
  if (session.dropped() > 0) dropped["buffer"] = session.dropped();
  const Budget& budget = session.budget();
  if (budget.refused() > 0) dropped[std::string(drop_reason(budget.full()))] = budget.refused();
  return dropped;
}

}  // namespace omni::stream
