// Takes the events out of a result of torch's profiler and gives them to trace and table.
#pragma once

#include <cstdint>

#include "profiler/budget.h"
#include "profiler/recorder.h"
#include "profiler/table.h"
#include "profiler/trace_writer.h"

namespace torch::autograd::profiler {
struct ProfilerResult;
}

namespace omni {

// Where events go, and how many of them.
struct TorchEventsSink {
  const RecorderConfig& config;
  int64_t from_ns = 0;           // leaves out what began before
  int64_t until_ns = INT64_MAX;  // leaves out what began later; what is open then ends then
  TraceWriter* trace = nullptr;  // may be null
  TableBuilder& table;
  Budget& budget;
};

// Writes everything that result holds and budget admits, each thread in the order of time. Returns the number of events
// written. Any thread.
int64_t write_torch_events(torch::autograd::profiler::ProfilerResult& result, const TorchEventsSink& sink);

}  // namespace omni
