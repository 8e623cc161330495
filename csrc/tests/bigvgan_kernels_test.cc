// Kernels of the vocoder against their plain twins, for every instruction set of this machine.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <vector>

#include "nn/conv1d.h"
#include "nn/cpu/generation.h"
#include "nn/snake.h"

namespace omni {
namespace {

double difference(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

TEST(AntiAliasFilter, IsTheReferences) {
  // kaiser_sinc_filter1d(0.25, 0.3, 12) of the reference; symmetric.
  const std::vector<float> half{0.0020289647F,  0.0093894657F, -0.0255434588F,
                                -0.0576573834F, 0.1285725832F, 0.4432097971F};
  const at::Tensor filter = anti_alias_filter();
  ASSERT_EQ(filter.numel(), 12);
  for (int i = 0; i < 6; ++i) {
    EXPECT_NEAR(filter[i].item<float>(), half[i], 1e-7);
    EXPECT_NEAR(filter[11 - i].item<float>(), half[i], 1e-7);
  }
  EXPECT_NEAR(filter.sum().item<float>(), 1.0F, 1e-6);
}

TEST(Snake, EqualsPlainTwin) {
  at::manual_seed(1);
  for (const int64_t length : {1, 2, 3, 4, 7, 16, 511, 512, 513, 4095, 9000}) {
    for (const int64_t pad : {0, 3}) {
      SCOPED_TRACE(testing::Message() << length << " samples, pad " << pad);
      const at::Tensor x = at::randn({3, length});
      const at::Tensor frequency = at::randn({3}).exp();
      const at::Tensor magnitude = at::randn({3}).exp();
      const at::Tensor own = anti_aliased_snake(x, frequency, magnitude, pad);
      const at::Tensor plain = anti_aliased_snake_plain(x, frequency, magnitude, pad);
      ASSERT_EQ(own.sizes(), plain.sizes());
      EXPECT_LT(difference(own, plain), 2e-5);
      EXPECT_EQ(own.narrow(1, 0, pad).ne(0).sum().item<int64_t>(), 0);
      EXPECT_EQ(own.narrow(1, length + pad, pad).ne(0).sum().item<int64_t>(), 0);
    }
  }
}

// Angles up to where the sine's own argument is uncertain by its rounding, and beyond what the kernel reduces itself.
TEST(Snake, LargeAngles) {
  at::manual_seed(2);
  const at::Tensor x = at::randn({4, 1000});
  const at::Tensor magnitude = at::ones({4});
  const at::Tensor frequency = at::tensor({1.0F, 100.0F, 3.0e3F, 1.0e6F});
  const at::Tensor own = anti_aliased_snake(x, frequency, magnitude, 0);
  // An angle of a is known to a * 2^-24 only, and the filters' order of summation changes that many bits.
  const at::Tensor wide = anti_aliased_snake_plain(x, frequency, magnitude, 0);
  EXPECT_LT(difference(own[0], wide[0]), 1e-5);
  EXPECT_LT(difference(own[1], wide[1]), 1e-4);
  EXPECT_LT(difference(own[2], wide[2]), 5e-3);
  EXPECT_TRUE(own[3].isfinite().all().item<bool>());
  EXPECT_LT(difference(own[3], x[3]), 3.0);
}

TEST(Snake, EveryInstructionSetAndEveryCutGivesTheSame) {
  at::manual_seed(3);
  const int64_t length = 1500;
  const at::Tensor x = at::randn({1, length});
  const at::Tensor plain = anti_aliased_snake_plain(x, at::full({1}, 2.5F), at::full({1}, 0.7F), 0);
  const at::Tensor filter = anti_alias_filter();
  const float* f = filter.const_data_ptr<float>();
  cpu::SnakeTaps taps;
  for (int k = 0; k < 6; ++k) {
    taps.up_even[k] = 2 * f[11 - 2 * k];
    taps.up_odd[k] = 2 * f[10 - 2 * k];
    taps.down_even[k] = f[2 * k + 1];
    taps.down_odd[k] = f[2 * k];
  }
  for (const cpu::GenerationKernels* kernels : cpu::supported_generation_kernels()) {
    SCOPED_TRACE(kernels->name);
    at::Tensor whole = at::zeros({1, length});
    const cpu::SnakeArgs args{x.const_data_ptr<float>(), length, 2.5F, 0.7F, whole.data_ptr<float>()};
    kernels->snake(args, taps, 0, length);
    EXPECT_LT(difference(whole, plain), 1e-5);
    for (const int64_t cut : {1, 17, 512, 700, 1499}) {
      at::Tensor pieces = at::zeros({1, length});
      cpu::SnakeArgs piece = args;
      piece.out = pieces.data_ptr<float>();
      kernels->snake(piece, taps, cut, length);
      EXPECT_EQ(pieces.narrow(1, 0, cut).ne(0).sum().item<int64_t>(), 0);
      kernels->snake(piece, taps, 0, cut);
      EXPECT_TRUE(at::equal(pieces, whole)) << cut;
    }
  }
}

struct Convolution {
  int64_t out, in, kernel, dilation, length;
};

const std::vector<Convolution> kConvolutions{
    {1, 1, 1, 1, 1},   {2, 3, 3, 1, 15},   {3, 2, 3, 3, 16},    {4, 4, 7, 5, 17},   {6, 5, 11, 1, 100},
    {7, 6, 3, 1, 383}, {8, 8, 11, 5, 384}, {12, 12, 7, 3, 385}, {15, 9, 5, 2, 800}, {17, 80, 7, 1, 97},
};

TEST(Conv1d, EqualsPlainTwin) {
  at::manual_seed(4);
  for (const Convolution& c : kConvolutions) {
    SCOPED_TRACE(testing::Message() << c.out << "x" << c.in << "x" << c.kernel << " dilation " << c.dilation
                                    << ", " << c.length << " outputs");
    const at::Tensor weight = at::randn({c.out, c.in, c.kernel});
    const at::Tensor x = at::randn({c.in, c.length + (c.kernel - 1) * c.dilation});
    for (const at::Tensor& bias : {at::randn({c.out}), at::Tensor()}) {
      Conv1d conv(weight, bias, c.dilation);
      conv.prepare();
      const at::Tensor plain = conv1d_plain(x, weight, bias, c.dilation);
      const at::Tensor own = conv.forward(x);
      ASSERT_EQ(own.sizes(), plain.sizes());
      EXPECT_LT(difference(own, plain), 1e-4);
      at::Tensor sum = at::ones_like(own);
      conv.add_to(sum, x);
      EXPECT_TRUE(at::equal(sum, own + 1));
    }
  }
}

TEST(Conv1d, EveryInstructionSetAndEveryCutGivesTheSame) {
  at::manual_seed(5);
  for (const Convolution& c : kConvolutions) {
    SCOPED_TRACE(testing::Message() << c.out << "x" << c.in << "x" << c.kernel << ", " << c.length
                                    << " outputs");
    const at::Tensor weight = at::randn({c.out, c.in, c.kernel});
    const at::Tensor bias = at::randn({c.out});
    const at::Tensor x = at::randn({c.in, c.length + (c.kernel - 1) * c.dilation});
    const at::Tensor plain = conv1d_plain(x, weight, bias, c.dilation);
    for (const cpu::GenerationKernels* kernels : cpu::supported_generation_kernels()) {
      SCOPED_TRACE(kernels->name);
      const std::vector<float> packed = cpu::pack_conv_weight(weight.const_data_ptr<float>(), c.out, c.in,
                                                              c.kernel, kernels->conv_channels);
      at::Tensor whole = at::zeros({c.out, c.length});
      cpu::ConvArgs args{x.const_data_ptr<float>(),
                         x.size(1),
                         c.in,
                         c.kernel,
                         c.dilation,
                         packed.data(),
                         bias.const_data_ptr<float>(),
                         whole.data_ptr<float>(),
                         c.length,
                         c.out,
                         false};
      kernels->conv(args, 0, c.length);
      EXPECT_LT(difference(whole, plain), 1e-4);
      for (const int64_t cut : {int64_t{1}, c.length / 3, c.length - 1}) {
        at::Tensor pieces = at::zeros({c.out, c.length});
        args.out = pieces.data_ptr<float>();
        kernels->conv(args, cut, c.length);
        EXPECT_EQ(pieces.narrow(1, 0, cut).ne(0).sum().item<int64_t>(), 0);
        kernels->conv(args, 0, cut);
        EXPECT_TRUE(at::equal(pieces, whole)) << cut;
      }
    }
  }
}

TEST(ConvTranspose1d, EqualsTorchs) {
  at::manual_seed(6);
  for (const auto& [in, out, kernel, stride] : std::vector<std::array<int64_t, 4>>{{4, 2, 11, 5},
                                                                                   {6, 3, 7, 3},
                                                                                   {2, 1, 4, 2},
                                                                                   {3, 5, 8, 3},
                                                                                   {2, 2, 5, 2},
                                                                                   {1, 1, 1, 1},
                                                                                   {3, 2, 4, 4},
                                                                                   {2, 3, 9, 1}}) {
    for (const int64_t length : {1, 2, 5, 40}) {
      SCOPED_TRACE(testing::Message()
                   << "kernel " << kernel << " stride " << stride << ", " << length << " inputs");
      const at::Tensor weight = at::randn({in, out, kernel});
      const at::Tensor bias = at::randn({out});
      const at::Tensor x = at::randn({in, length});
      const at::Tensor plain =
          at::conv_transpose1d(x.unsqueeze(0), weight, bias, stride, (kernel - stride) / 2)[0];
      ConvTranspose1d conv(weight, bias, stride);
      conv.prepare();
      EXPECT_EQ(conv.out_length(length), plain.size(1));
      const at::Tensor own = conv.forward(x);
      ASSERT_EQ(own.sizes(), plain.sizes());
      EXPECT_LT(difference(own, plain), 1e-5);
    }
  }
}

}  // namespace
}  // namespace omni
