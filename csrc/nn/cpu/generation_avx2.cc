// The generation kernels for AVX2 with FMA and F16C.
#include "nn/cpu/generation_isa.h"
#include "nn/cpu/isa.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cmath>

#define OMNI_TARGET __attribute__((target("avx2,fma,f16c")))
#define OMNI_FN OMNI_TARGET inline __attribute__((always_inline))

namespace omni::cpu {
namespace {

#include "nn/cpu/vec_avx2.inc"
// The vectors come first: the kernels are written over them.
constexpr int kTileVectors = 12;  // accumulators of a tile, of 16 registers
constexpr int kConvChannels = 4;
#include "nn/cpu/generation.inc"

}  // namespace

const GenerationKernels kAvx2GenerationKernels = {"avx2",          kConvChannels, ada_norm,
                                                  block_attention, snake,         conv};

}  // namespace omni::cpu

#endif  // __x86_64__
