// The recorder "kineto": torch's own profiler, driven from inside the process. Complete, but slow to stop.
#pragma once

#include <memory>

#include "profiler/recorder.h"

namespace omni {

// [torch thread] Begins to record the ops of this thread, and of those to which torch hands its thread-local state.
std::unique_ptr<Recorder> start_torch_recorder(RecorderConfig config);

}  // namespace omni
