// Kernels of the diffusion transformer against their plain twins, for every instruction set of this machine.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "nn/ada_norm.h"
#include "nn/block_attention.h"
#include "nn/cpu/generation.h"
#include "nn/dense.h"

namespace omni {
namespace {

double difference(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

TEST(AdaNorm, EqualsPlainTwin) {
  at::manual_seed(1);
  for (const int64_t width : {1, 7, 16, 33, 256, 1000}) {
    SCOPED_TRACE(width);
    const at::Tensor x = at::randn({2, 3, width}) * 3 + 1;
    const at::Tensor y = at::randn({2, 3, width});
    const at::Tensor gate = at::randn({width});
    const at::Tensor scale = at::randn({width});
    const at::Tensor shift = at::randn({width});
    EXPECT_LT(difference(ada_layer_norm(x, scale, shift, 1e-6), ada_layer_norm_plain(x, scale, shift, 1e-6)),
              2e-5);
    at::Tensor own = x.clone();
    at::Tensor plain = x.clone();
    const at::Tensor a = gated_add_ada_layer_norm(own, y, gate, scale, shift, 1e-6);
    const at::Tensor b = gated_add_ada_layer_norm_plain(plain, y, gate, scale, shift, 1e-6);
    EXPECT_LT(difference(own, plain), 1e-5);
    EXPECT_LT(difference(a, b), width == 1 ? 1e-3 : 2e-5);
  }
}

TEST(AdaNorm, EveryInstructionSetAndNoRowBeyondItsRange) {
  at::manual_seed(2);
  const int64_t width = 37;
  const at::Tensor x = at::randn({5, width});
  const at::Tensor y = at::randn({5, width});
  const at::Tensor gate = at::randn({width});
  const at::Tensor scale = at::randn({width});
  const at::Tensor shift = at::randn({width});
  at::Tensor plain_x = x.clone();
  const at::Tensor plain = gated_add_ada_layer_norm_plain(plain_x, y, gate, scale, shift, 1e-6);
  for (const cpu::GenerationKernels* kernels : cpu::supported_generation_kernels()) {
    SCOPED_TRACE(kernels->name);
    at::Tensor changed = x.clone();
    at::Tensor out = at::full({5, width}, 9.0F);
    kernels->ada_norm({changed.data_ptr<float>(), y.data_ptr<float>(), gate.data_ptr<float>(),
                       scale.data_ptr<float>(), shift.data_ptr<float>(), out.data_ptr<float>(), width, 1e-6F},
                      1, 4);
    EXPECT_LT(difference(out.narrow(0, 1, 3), plain.narrow(0, 1, 3)), 2e-5);
    EXPECT_LT(difference(changed.narrow(0, 1, 3), plain_x.narrow(0, 1, 3)), 1e-5);
    for (const int64_t row : {0, 4}) {
      EXPECT_TRUE(at::equal(changed[row], x[row]));
      EXPECT_TRUE(out[row].eq(9).all().item<bool>());
    }
  }
}

struct Attention {
  int64_t batch, rows, heads, head_dim;
  BlockWindow window;
};

TEST(BlockAttention, EqualsFullAttentionUnderAMask) {
  at::manual_seed(3);
  const std::vector<Attention> cases{
      {1, 1, 1, 2, {24, 0, 0}},    {2, 24, 4, 64, {24, 0, 0}},  {2, 25, 4, 64, {24, 0, 0}},
      {2, 100, 4, 64, {24, 1, 0}}, {2, 100, 4, 64, {24, 0, 1}}, {2, 100, 4, 64, {24, 1, 1}},
      {1, 7, 3, 10, {5, 1, 1}},    {1, 13, 5, 6, {1, 0, 0}},    {1, 13, 2, 16, {3, 1, 0}},
      {2, 9, 2, 96, {100, 1, 1}},  {1, 200, 1, 8, {70, 1, 1}},
  };
  for (const Attention& c : cases) {
    SCOPED_TRACE(testing::Message() << c.rows << " rows, blocks of " << c.window.size << ", " << c.window.back
                                    << " back, " << c.window.ahead << " ahead, head_dim " << c.head_dim);
    const at::Tensor qkv = at::randn({c.batch, c.rows, 3, c.heads, c.head_dim}) * 2;
    const at::Tensor angles = at::randn({c.rows, c.head_dim / 2}) * 3;
    const at::Tensor own = block_attention(qkv, angles.cos(), angles.sin(), c.window);
    const at::Tensor plain = block_attention_plain(qkv, angles.cos(), angles.sin(), c.window);
    EXPECT_EQ(own.sizes(), plain.sizes());
    EXPECT_LT(difference(own, plain), 1e-5);
    // Blocks that nothing looks at beyond do not depend on what follows.
    if (c.window.ahead == 0 && c.rows > c.window.size) {
      const int64_t first = c.window.size;
      const at::Tensor cut =
          block_attention(qkv.narrow(1, 0, first).contiguous(), angles.narrow(0, 0, first).cos(),
                          angles.narrow(0, 0, first).sin(), c.window);
      EXPECT_TRUE(at::equal(cut, own.narrow(1, 0, first)));
    }
  }
}

TEST(BlockAttention, EveryInstructionSet) {
  at::manual_seed(4);
  for (const int64_t keys : {1, 8, 15, 24, 72}) {
    for (const int64_t head_dim : {2, 12, 64}) {
      const int64_t rows = std::min<int64_t>(keys, 13);
      SCOPED_TRACE(testing::Message() << rows << " rows, " << keys << " keys, head_dim " << head_dim);
      const at::Tensor qkv = at::randn({1, keys, 3, 1, head_dim});
      const at::Tensor angles = at::randn({keys, head_dim / 2});
      const at::Tensor cosines = angles.cos();
      const at::Tensor sines = angles.sin();
      const at::Tensor plain = block_attention_plain(qkv, cosines, sines, {keys, 0, 0});
      for (const cpu::GenerationKernels* kernels : cpu::supported_generation_kernels()) {
        SCOPED_TRACE(kernels->name);
        at::Tensor out = at::empty({rows, head_dim});
        const float* data = qkv.const_data_ptr<float>();
        cpu::BlockAttentionArgs args;
        args.q = data;
        args.k = data + head_dim;
        args.v = data + 2 * head_dim;
        args.out = out.data_ptr<float>();
        args.row_stride = 3 * head_dim;
        args.out_stride = head_dim;
        args.rows = rows;
        args.keys = keys;
        args.head_dim = head_dim;
        args.scale = 1.0F / std::sqrt(static_cast<float>(head_dim));
        args.q_cosines = args.k_cosines = cosines.const_data_ptr<float>();
        args.q_sines = args.k_sines = sines.const_data_ptr<float>();
        std::vector<float> scratch(cpu::block_attention_scratch(rows, keys, head_dim));
        kernels->block_attention(args, scratch.data());
        EXPECT_LT(difference(out, plain[0].narrow(0, 0, rows)), 1e-5);
      }
    }
  }
}

TEST(BlockAttention, SurvivesScoresThatOverflowTheExponential) {
  at::Tensor qkv = at::randn({1, 24, 3, 1, 4});
  qkv.select(2, 0).mul_(200);
  qkv.select(2, 1).mul_(200);
  const at::Tensor zeros = at::zeros({24, 2});
  const at::Tensor own = block_attention(qkv, at::ones({24, 2}), zeros, {24, 0, 0});
  const at::Tensor plain = block_attention_plain(qkv, at::ones({24, 2}), zeros, {24, 0, 0});
  EXPECT_TRUE(own.isfinite().all().item<bool>());
  EXPECT_LT(difference(own, plain), 1e-4);
}

TEST(Dense, EqualsPlainTwin) {
  at::manual_seed(5);
  for (const auto& [rows, in, out] :
       std::vector<std::array<int64_t, 3>>{{1, 1, 1}, {3, 5, 7}, {200, 80, 96}, {1, 64, 33}}) {
    SCOPED_TRACE(testing::Message() << rows << "x" << in << "x" << out);
    const at::Tensor x = at::randn({rows, in});
    const at::Tensor weight = at::randn({out, in}) / std::sqrt(static_cast<double>(in));
    const at::Tensor bias = at::randn({out});
    for (const DenseActivation activation : {DenseActivation::kNone, DenseActivation::kGeluTanh}) {
      EXPECT_LT(difference(dense(x, weight, bias, activation), dense_plain(x, weight, bias, activation)),
                1e-5);
    }
    EXPECT_LT(difference(dense(x, weight, {}), dense_plain(x, weight, {})), 1e-5);
  }
}

}  // namespace
}  // namespace omni
