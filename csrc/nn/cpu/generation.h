// The CPU kernels of generation engines (diffusion transformers and vocoders) in float32, compiled once per instruction
// set and chosen at run time.
//
// A value that they compute does not depend on where it stands: neither on the piece that a thread got, nor on where a
// row begins or ends beyond what the value needs. So a signal can be computed in overlapping pieces that equal the
// whole bit for bit.
#pragma once

#include <cstdint>
#include <vector>

namespace omni::cpu {

// Rows [begin, end) of width columns: x += gate * y if there is a y, then out = layer_norm(x) * scale + shift.
struct AdaNormArgs {
  float* x;
  const float* y;  // nullptr: x is only read
  const float* gate;
  const float* scale;
  const float* shift;
  float* out;
  int64_t width;
  float eps;
};

// One head of one block: `rows` queries see `keys` keys. Rows of q, k and v are row_stride floats apart.
struct BlockAttentionArgs {
  const float* q;
  const float* k;
  const float* v;
  float* out;
  int64_t row_stride;
  int64_t out_stride;
  int64_t rows;
  int64_t keys;
  int64_t head_dim;
  float scale;
  // Angles by which pairs of neighbouring columns are rotated first: [rows, head_dim / 2] and [keys, head_dim / 2].
  // nullptr for heads that are not rotated.
  const float* q_cosines;
  const float* q_sines;
  const float* k_cosines;
  const float* k_sines;
};

// Polyphase taps of an up- and a downsampling filter of 12 taps, by which a signal becomes two interleaved ones of its
// own rate (even and odd samples of twice the rate) and one again.
struct SnakeTaps {
  float up_even[6];
  float up_odd[6];
  float down_even[6];
  float down_odd[6];
};

// See nn/snake.h. One row of x; out[t] belongs to x[t].
struct SnakeArgs {
  const float* x;
  int64_t length;
  float frequency;
  float magnitude;
  float* out;
};

// out[o, t] = bias[o] + sum over i, k of weight[o, i, k] * x[i, t + k * dilation].
struct ConvArgs {
  const float* x;  // x_stride apart; each row holds kernel - 1 dilations more than it has outputs
  int64_t x_stride;
  int64_t in;
  int64_t kernel;
  int64_t dilation;
  const float* weight;  // as pack_conv_weight lays it out
  const float* bias;    // nullptr for none
  float* out;
  int64_t out_stride;
  int64_t out_channels;
  bool add;  // to what out holds
};

struct GenerationKernels {
  const char* name;       // "avx512", "avx2", "portable"
  int64_t conv_channels;  // output channels that are computed together, a power of two

  void (*ada_norm)(const AdaNormArgs& args, int64_t begin, int64_t end);
  // scratch: block_attention_scratch() floats.
  void (*block_attention)(const BlockAttentionArgs& args, float* scratch);
  void (*snake)(const SnakeArgs& args, const SnakeTaps& taps, int64_t begin, int64_t end);
  // Outputs [begin, end) of all channels.
  void (*conv)(const ConvArgs& args, int64_t begin, int64_t end);
};

// Floats of scratch memory for one call of block_attention.
int64_t block_attention_scratch(int64_t rows, int64_t keys, int64_t head_dim);

// Lays [out, in, kernel] out for `conv`: blocks of output channels, each [in, kernel, channels of the block]. A block
// has conv_channels channels; what remains is cut into smaller powers of two.
std::vector<float> pack_conv_weight(const float* weight, int64_t out, int64_t in, int64_t kernel,
                                    int64_t conv_channels);

// The best ones for this processor. Any thread.
const GenerationKernels& generation_kernels();

// All that this processor can run, best first: for tests that compare them.
const std::vector<const GenerationKernels*>& supported_generation_kernels();

}  // namespace omni::cpu
