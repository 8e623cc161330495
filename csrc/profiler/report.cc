// Results of a recording.
#include "profiler/report.h"

#include <torch/headeronly/version.h>

#include <chrono>
#include <exception>

#include "profiler/output_file.h"

namespace omni {

void FinishedFiles::finish_trace(TraceWriter& trace, int64_t end_ns) {
  if (full != Full::kNo) {
    trace.mark("Recording ended early: " + std::string(full_name(full)), end_ns);
  }
  trace.finish(end_ns, {{"events", events},
                        {"steps", steps},
                        {"dropped", dropped_json()},
                        {"full", full_name(full)},
                        {"wall_ns", wall_ns},
                        {"overhead_ns", overhead_ns},
                        {"writer_ns", writer_ns}});
  files_.push_back({{"path", trace.file().path()}, {"kind", "trace"}, {"bytes", trace.file().bytes_out()}});
}

void FinishedFiles::write_table(const TableBuilder& table) {
  try {
    write_table_file(table);
  } catch (const std::exception& error) {
    table_error_ = error.what();
  }
}

void FinishedFiles::write_table_file(const TableBuilder& table) {
  const auto began = std::chrono::steady_clock::now();
  int64_t lost = 0;
  for (const auto& [reason, count] : dropped) lost += count;
  std::string text = "Stage " + std::to_string(config_.stage) + " (" + config_.worker + "), rank " +
                     std::to_string(config_.rank) + " of " + std::to_string(config_.world_size) +
                     ", session " + config_.session + "." + std::to_string(config_.base_time_ns) + ": " +
                     std::to_string(steps) + " steps, " + std::to_string(events) + " events, " +
                     std::to_string(lost) + " dropped\n";
  text += format_table(table.rows(), {.with_memory = config_.with_memory, .with_flops = config_.with_flops});
  OutputFile file(config_.table_path, false, Name::kReserved);
  file.write(text);
  file.commit();
  files_.push_back({{"path", file.path()}, {"kind", "table"}, {"bytes", file.bytes_out()}});
  table_ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - began).count();
}

nlohmann::json FinishedFiles::json() const {
  nlohmann::json result = {{"files", files_},           {"events", events},          {"steps", steps},
                           {"dropped", dropped_json()}, {"write_ms", write_ms},      {"table_ms", table_ms},
                           {"wall_ns", wall_ns},        {"overhead_ns", overhead_ns}};
  if (!table_error_.empty()) result["table_error"] = table_error_;
  return result;
}

nlohmann::json FinishedFiles::dropped_json() const {
  return dropped.empty() ? nlohmann::json::object() : nlohmann::json(dropped);
}

nlohmann::json trace_environment() { return {{"torch_version", TORCH_VERSION}}; }

}  // namespace omni
