// The generation kernels in plain C++, for any processor.
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "nn/cpu/generation_isa.h"
#include "nn/cpu/isa.h"

#define OMNI_TARGET
#define OMNI_FN inline

namespace omni::cpu {
namespace {

#include "nn/cpu/vec_portable.inc"
// The vectors come first: the kernels are written over them.
constexpr int kTileVectors = 4;
constexpr int kConvChannels = 4;
#include "nn/cpu/generation.inc"

}  // namespace

const GenerationKernels kPortableGenerationKernels = {"portable",      kConvChannels, ada_norm,
                                                      block_attention, snake,         conv};

}  // namespace omni::cpu
