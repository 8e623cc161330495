// Takes the events out of a result of torch's profiler and gives them to trace and table.
#pragma once

#include <cstdint>

#include "profiler/recorder.h"
#include "profiler/table.h"
#include "profiler/trace_writer.h"

namespace torch::autograd::profiler {
struct ProfilerResult;
}

namespace omni {

// Writes everything that result holds, each thread in the order of time; trace may be null. Returns the number of
// events. Any thread.
int64_t write_torch_events(torch::autograd::profiler::ProfilerResult& result, const RecorderConfig& config,
                           TraceWriter* trace, TableBuilder& table);

}  // namespace omni
