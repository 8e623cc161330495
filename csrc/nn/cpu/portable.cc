// The kernels in plain C++, for any processor.
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "nn/cpu/isa.h"

#define OMNI_TARGET
#define OMNI_FN inline

namespace omni::cpu {
namespace {

#include "nn/cpu/vec_portable.inc"
// The vectors come first: the kernels are written over them.
#include "nn/cpu/kernels.inc"

}  // namespace

const Kernels kPortableKernels = {"portable", false, typed_kernels<float, float>(),
                                  typed_kernels<Bf16, float>(), typed_kernels<Fp16, float>()};

}  // namespace omni::cpu
