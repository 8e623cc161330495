// Chooses the generation kernels for the processor that the program runs on, and lays out what they work on.
#include "nn/cpu/generation.h"

#include <cstddef>

#include "nn/cpu/generation_isa.h"

namespace omni::cpu {
namespace {

// A multiple of the lanes of every instruction set.
constexpr int64_t kWidestVector = 16;

int64_t rounded_up(int64_t value) { return (value + kWidestVector - 1) / kWidestVector * kWidestVector; }

std::vector<const GenerationKernels*> find_supported() {
  std::vector<const GenerationKernels*> found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
    found.push_back(&kAvx512GenerationKernels);
  }
  if (avx2) found.push_back(&kAvx2GenerationKernels);
#endif
  found.push_back(&kPortableGenerationKernels);
  return found;
}

}  // namespace

int64_t block_attention_scratch(int64_t rows, int64_t keys, int64_t head_dim) {
  // Rotated queries, transposed keys, padded values, scores.
  return rows * head_dim + head_dim * rounded_up(keys) + keys * rounded_up(head_dim) +
         rows * rounded_up(keys);
}

std::vector<float> pack_conv_weight(const float* weight, int64_t out, int64_t in, int64_t kernel,
                                    int64_t conv_channels) {
  std::vector<float> packed(static_cast<size_t>(out * in * kernel));
  float* to = packed.data();
  int64_t block = conv_channels;
  for (int64_t first = 0; first < out; first += block) {
    while (block > out - first) block /= 2;
    for (int64_t i = 0; i < in * kernel; ++i) {
      for (int64_t o = 0; o < block; ++o) *to++ = weight[(first + o) * in * kernel + i];
    }
  }
  return packed;
}

const std::vector<const GenerationKernels*>& supported_generation_kernels() {
  static const std::vector<const GenerationKernels*> found = find_supported();
  return found;
}

const GenerationKernels& generation_kernels() { return *supported_generation_kernels().front(); }

}  // namespace omni::cpu
