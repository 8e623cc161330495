// What every recorder does at the end: close the trace, write the table, and say what came out.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "profiler/budget.h"
#include "profiler/recorder.h"
#include "profiler/table.h"
#include "profiler/trace_writer.h"

namespace omni {

// The files of one recording and its counts. Not thread-safe.
class FinishedFiles {
 public:
  explicit FinishedFiles(const RecorderConfig& config) : config_(config) {}

  int64_t events = 0;
  int64_t steps = 0;
  std::map<std::string, int64_t> dropped;  // what the files lack, by reason
  double write_ms = 0;
  double table_ms = 0;      // of those, for the table; set by write_table
  int64_t wall_ns = 0;      // how long was recorded
  int64_t overhead_ns = 0;  // how much longer the recorded ops took for it
  int64_t writer_ns = 0;    // processor time of writing while recording; 0 if all was written afterwards
  Full full = Full::kNo;

  // Completes the trace. Events and drops must be final.
  void finish_trace(TraceWriter& trace, int64_t end_ns);
  // Writes the operator table; its first line names stage, rank and session with the time in the names of its traces.
  // That it cannot be written is part of the result: the trace is worth as much without it.
  void write_table(const TableBuilder& table);

  // The result of omni_recorder_finish.
  nlohmann::json json() const;

 private:
  void write_table_file(const TableBuilder& table);
  nlohmann::json dropped_json() const;

  const RecorderConfig& config_;
  nlohmann::json files_ = nlohmann::json::array();
  std::string table_error_;  // empty: it has been written, or none was asked for
};

// Versions, for the header of a trace.
nlohmann::json trace_environment();

}  // namespace omni
