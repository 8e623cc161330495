// Chooses the kernels for the processor that the program runs on.
#include "nn/cpu/kernels.h"

#include "nn/cpu/isa.h"
#include "status.h"

namespace omni::cpu {
namespace {

std::vector<const Kernels*> find_supported() {
  std::vector<const Kernels*> found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (avx512 && __builtin_cpu_supports("avx512bf16")) found.push_back(&kAvx512Bf16Kernels);
  if (avx512) found.push_back(&kAvx512Kernels);
  if (avx2) found.push_back(&kAvx2Kernels);
#endif
  found.push_back(&kPortableKernels);
  return found;
}

}  // namespace

const TypedKernels& Kernels::typed(c10::ScalarType dtype) const {
  switch (dtype) {
    case c10::ScalarType::Float:
      return f32;
    case c10::ScalarType::BFloat16:
      return bf16;
    case c10::ScalarType::Half:
      return f16;
    default:
      throw Error(OMNI_INVALID_ARGUMENT,
                  std::string("decode kernels: expected float32, bfloat16 or float16, found ") +
                      c10::toString(dtype));
  }
}

const std::vector<const Kernels*>& supported_kernels() {
  static const std::vector<const Kernels*> found = find_supported();
  return found;
}

const Kernels& kernels() { return *supported_kernels().front(); }

}  // namespace omni::cpu
