// The generation kernels for AVX-512 (F, BW, VL, DQ).
#include "nn/cpu/generation_isa.h"
#include "nn/cpu/isa.h"

#if defined(__x86_64__)

// gcc 12's headers make "undefined" operands from variables that initialise themselves, and then warn about them.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

#include <immintrin.h>

#include <algorithm>
#include <cmath>

#define OMNI_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")))
#define OMNI_FN OMNI_TARGET inline __attribute__((always_inline))

namespace omni::cpu {
namespace {

#include "nn/cpu/vec_avx512.inc"
// The vectors come first: the kernels are written over them.
constexpr int kTileVectors = 24;  // accumulators of a tile, of 32 registers
constexpr int kConvChannels = 8;
#include "nn/cpu/generation.inc"

}  // namespace

const GenerationKernels kAvx512GenerationKernels = {"avx512",        kConvChannels, ada_norm,
                                                    block_attention, snake,         conv};

}  // namespace omni::cpu

#endif  // __x86_64__
