// The recorder "stream": callbacks on torch's RecordFunction into logs in memory, and a thread of its own that writes the
// files while ops run. Stopping takes as long as copying what is in the logs.
#pragma once

#include <memory>

#include "cuda/activity.h"
#include "profiler/recorder.h"

namespace omni {

// [torch thread] Begins to record the ops of this thread, and of those to which torch hands its thread-local state.
// Where config asks for CUDA, with what the GPUs do.
std::unique_ptr<Recorder> start_stream_recorder(RecorderConfig config);
// The same with the given collector of GPU activity (null: none), which must outlive it.
std::unique_ptr<Recorder> start_stream_recorder(RecorderConfig config, cuda::ActivitySource* gpu);

}  // namespace omni
