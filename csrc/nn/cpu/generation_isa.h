// The instruction sets that the generation kernels are compiled for. Only the files in this folder include it.
#pragma once

#include "nn/cpu/generation.h"

namespace omni::cpu {

extern const GenerationKernels kPortableGenerationKernels;
#if defined(__x86_64__)
extern const GenerationKernels kAvx2GenerationKernels;
extern const GenerationKernels kAvx512GenerationKernels;
#endif

}  // namespace omni::cpu
