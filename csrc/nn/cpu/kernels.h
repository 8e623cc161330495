// The CPU kernels of the decode path, compiled once per instruction set and chosen at run time.
//
// All of them keep one promise: what they write for one row depends on that row and its weights only, never on how
// many rows there are, which thread works on it, or where the work was cut. So a sequence gets the same bits alone and
// in any batch.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <vector>

namespace omni::cpu {

// out[b, n] = sum_k x[b, k] * weight[n, k] + bias[n] for n in [begin, end), summed in fp32 and rounded to the element
// type once; then out = residual + out if there is a residual. Rows are dense.
struct LinearArgs {
  const void* x;         // [batch, in]: fp32, or bf16 if the weights are bf16 and Kernels::bf16_dot is set
  const void* weight;    // [out_features, in]
  const void* bias;      // [out_features] or nullptr
  const void* residual;  // [batch, out_features] or nullptr
  void* out;             // [batch, out_features]
  int64_t batch;
  int64_t in;
  int64_t out_features;
};

// One query position of one sequence against its cache.
struct AttentionArgs {
  const void* query;   // [heads, head_dim]
  const void* keys;    // [kv_heads, capacity, head_dim]
  const void* values;  // the same
  void* out;           // [heads, head_dim]
  int64_t heads;
  int64_t kv_heads;
  int64_t head_dim;
  int64_t capacity;
  int64_t begin;  // the first and one past the last position that are seen
  int64_t end;
  float scale;
};

// Rotates heads of one row: halves (i, i + head_dim / 2) turn by the angle of i. in and out may be the same.
struct RopeArgs {
  const void* in;
  void* out;
  int64_t heads;
  int64_t in_stride;  // elements from one head to the next
  int64_t out_stride;
  int64_t head_dim;
  const float* cosines;  // [head_dim / 2], rounded to the element type
  const float* sines;
};

// The kernels for one element type: float, bfloat16 or float16 weights and activations, fp32 inside.
struct TypedKernels {
  void (*linear)(const LinearArgs& args, int64_t begin, int64_t end);
  // out = round(x * rsqrt(mean(x^2) + eps)) * weight for rows [begin, end) of width n.
  void (*rms_norm)(const void* x, const void* weight, void* out, int64_t n, float eps, int64_t begin,
                   int64_t end);
  // out = round(silu(gate)) * up for rows [begin, end) of width n.
  void (*silu_mul)(const void* gate, const void* up, void* out, int64_t n, int64_t begin, int64_t end);
  void (*rope)(const RopeArgs& args);
  // The query heads that share kv_head. scratch holds (heads / kv_heads) * (end - begin) floats.
  void (*attention)(const AttentionArgs& args, int64_t kv_head, float* scratch);
};

struct Kernels {
  const char* name;  // "avx512_bf16", "avx512", "avx2", "portable"
  bool bf16_dot;     // bf16 weights are multiplied by bf16 activations directly
  TypedKernels f32;
  TypedKernels bf16;
  TypedKernels f16;

  // float32, bfloat16 or float16; anything else throws INVALID_ARGUMENT.
  const TypedKernels& typed(c10::ScalarType dtype) const;
};

// The best ones for this processor. Any thread.
const Kernels& kernels();

// All that this processor can run, best first: for tests that compare them.
const std::vector<const Kernels*>& supported_kernels();

}  // namespace omni::cpu
