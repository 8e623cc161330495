// The recorder "stream": callbacks on torch's RecordFunction into logs in memory, and a thread of its own that writes the
// files while ops run. Stopping takes as long as copying what is in the logs.
#pragma once

#include <memory>

#include "profiler/recorder.h"

namespace omni {

// [torch thread] Begins to record the ops of this thread, and of those to which torch hands its thread-local state.
std::unique_ptr<Recorder> start_stream_recorder(RecorderConfig config);

}  // namespace omni
