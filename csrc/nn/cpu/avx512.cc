// The kernels for AVX-512 (F, BW, VL, DQ).
#include "nn/cpu/isa.h"

#if defined(__x86_64__)

// gcc 12's headers make "undefined" operands from variables that initialise themselves, and then warn about them.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

#include <immintrin.h>

#include <algorithm>

#define OMNI_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")))
#define OMNI_FN OMNI_TARGET inline __attribute__((always_inline))

namespace omni::cpu {
namespace {

#include "nn/cpu/vec_avx512.inc"
// The vectors come first: the kernels are written over them.
#include "nn/cpu/kernels.inc"

}  // namespace

const Kernels kAvx512Kernels = {"avx512", false, typed_kernels<float, float>(), typed_kernels<Bf16, float>(),
                                typed_kernels<Fp16, float>()};

}  // namespace omni::cpu

#endif  // __x86_64__
