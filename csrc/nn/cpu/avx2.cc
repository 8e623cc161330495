// The kernels for AVX2 with FMA and F16C.
#include "nn/cpu/isa.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>

#define OMNI_TARGET __attribute__((target("avx2,fma,f16c")))
#define OMNI_FN OMNI_TARGET inline __attribute__((always_inline))

namespace omni::cpu {
namespace {

#include "nn/cpu/vec_avx2.inc"
// The vectors come first: the kernels are written over them.
#include "nn/cpu/kernels.inc"

}  // namespace

const Kernels kAvx2Kernels = {"avx2", false, typed_kernels<float, float>(), typed_kernels<Bf16, float>(),
                              typed_kernels<Fp16, float>()};

}  // namespace omni::cpu

#endif  // __x86_64__
