// The instruction sets that the kernels are compiled for. Only the files in this folder include it.
#pragma once

#include <cstdint>

#include "nn/cpu/kernels.h"

namespace omni::cpu {

// Storage of the 16-bit element types.
struct Bf16 {
  uint16_t bits;
};
struct Fp16 {
  uint16_t bits;
};

extern const Kernels kPortableKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
extern const Kernels kAvx512Bf16Kernels;
#endif

}  // namespace omni::cpu
