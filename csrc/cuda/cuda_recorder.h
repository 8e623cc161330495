// The recorder "cuda": writes nothing itself, but marks steps and modules for a tool that watches from outside.
#pragma once

#include <memory>

#include "cuda/activity.h"
#include "profiler/recorder.h"

namespace omni {

// [torch thread] Lets the tool begin (cudaProfilerStart: nsys profile --capture-range=cudaProfilerApi waits for it) and
// opens an NVTX range for every step and every module scope of this thread until stop. Throws FAILED_PRECONDITION that
// says what is missing where there is no CUDA device or libomni_cuda.so.
std::unique_ptr<Recorder> start_cuda_recorder(RecorderConfig config);
// The same with the given marks, which must outlive it.
std::unique_ptr<Recorder> start_cuda_recorder(RecorderConfig config, cuda::Ranges& marks);

}  // namespace omni
