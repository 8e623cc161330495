// The decode kernels of every instruction set that this machine has, against libtorch, over odd shapes; and the promise
// that a row's bits do not depend on the batch.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <tuple>
#include <vector>

#include "nn/cpu/kernels.h"

namespace omni {
namespace {

at::Generator generator(uint64_t seed) {
  at::Generator made = at::detail::createCPUGenerator(seed);
  return made;
}

at::Tensor normal(at::IntArrayRef shape, at::ScalarType dtype, uint64_t seed) {
  return at::randn(shape, generator(seed), at::TensorOptions().dtype(at::kFloat)).to(dtype);
}

// Twice the distance between neighbours of 1.0, relative to the result's size.
double tolerance(at::ScalarType dtype) {
  if (dtype == at::kBFloat16) return 1.6e-2;
  return dtype == at::kHalf ? 2e-3 : 2e-6;
}

void expect_close(const at::Tensor& got, const at::Tensor& want, double tolerance) {
  ASSERT_EQ(got.sizes(), want.sizes());
  const at::Tensor error = (got.to(at::kDouble) - want.to(at::kDouble)).abs();
  const at::Tensor allowed = tolerance * (1 + want.to(at::kDouble).abs());
  EXPECT_TRUE((error <= allowed).all().item<bool>()) << "largest error " << error.max().item<double>();
}

const void* data_or_null(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.const_data_ptr() : nullptr;
}

class KernelTest : public testing::TestWithParam<std::tuple<size_t, at::ScalarType>> {
 protected:
  const cpu::Kernels& kernels() const { return *cpu::supported_kernels()[std::get<0>(GetParam())]; }
  at::ScalarType dtype() const { return std::get<1>(GetParam()); }
  const cpu::TypedKernels& typed() const { return kernels().typed(dtype()); }

  // The rows of x as the linear kernel wants them.
  at::Tensor operand(const at::Tensor& x) const {
    const bool direct = dtype() == at::kBFloat16 && kernels().bf16_dot;
    return direct ? x : x.to(at::kFloat);
  }

  // The kernel over weight rows [0, split) and [split, end), as two threads would.
  at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                    const at::Tensor& residual, int64_t split) const {
    const at::Tensor rows = operand(x);
    at::Tensor out = at::empty({x.size(0), weight.size(0)}, x.options());
    const cpu::LinearArgs args = {rows.const_data_ptr(),
                                  weight.const_data_ptr(),
                                  data_or_null(bias),
                                  data_or_null(residual),
                                  out.mutable_data_ptr(),
                                  x.size(0),
                                  x.size(1),
                                  weight.size(0)};
    typed().linear(args, split, weight.size(0));
    typed().linear(args, 0, split);
    return out;
  }
};

TEST_P(KernelTest, LinearEqualsLibtorch) {
  for (const int64_t in : {1, 7, 16, 31, 33, 64, 100, 257}) {
    for (const int64_t out : {1, 3, 8, 17, 40}) {
      for (const int64_t batch : {1, 2, 3, 4, 5, 8, 17}) {
        SCOPED_TRACE(std::to_string(in) + " to " + std::to_string(out) + ", batch " + std::to_string(batch));
        const at::Tensor x = normal({batch, in}, dtype(), 1);
        const at::Tensor weight = normal({out, in}, dtype(), 2) / std::sqrt(static_cast<double>(in));
        const at::Tensor bias = batch % 2 == 0 ? normal({out}, dtype(), 3) : at::Tensor();
        const at::Tensor residual = batch % 3 == 0 ? normal({batch, out}, dtype(), 4) : at::Tensor();
        at::Tensor want = x.to(at::kDouble).matmul(weight.to(at::kDouble).t());
        if (bias.defined()) want = want + bias.to(at::kDouble);
        if (residual.defined()) want = want.to(dtype()).to(at::kDouble) + residual.to(at::kDouble);
        expect_close(linear(x, weight, bias, residual, out / 2), want, tolerance(dtype()));
      }
    }
  }
}

TEST_P(KernelTest, LinearBitsDoNotDependOnBatchOrSplit) {
  for (const int64_t in : {5, 48, 77, 1024}) {
    constexpr int64_t kOut = 37;
    constexpr int64_t kBatch = 17;
    const at::Tensor x = normal({kBatch, in}, dtype(), 5);
    const at::Tensor weight = normal({kOut, in}, dtype(), 6);
    const at::Tensor bias = normal({kOut}, dtype(), 7);
    const at::Tensor residual = normal({kBatch, kOut}, dtype(), 8);
    const at::Tensor alone_last =
        linear(x.slice(0, kBatch - 1), weight, bias, residual.slice(0, kBatch - 1), 0);
    for (const int64_t batch : {1, 2, 3, 4, 6, 7, 16, 17}) {
      for (const int64_t split : {0, 1, 5, 16, 36}) {
        SCOPED_TRACE("in " + std::to_string(in) + ", batch " + std::to_string(batch) + ", split " +
                     std::to_string(split));
        const at::Tensor got =
            linear(x.slice(0, kBatch - batch), weight, bias, residual.slice(0, kBatch - batch), split);
        EXPECT_TRUE(at::equal(got[batch - 1], alone_last[0]));
      }
    }
  }
}

TEST_P(KernelTest, RmsNormEqualsLibtorch) {
  for (const int64_t width : {1, 15, 16, 24, 33, 200}) {
    SCOPED_TRACE(width);
    const at::Tensor x = normal({5, width}, dtype(), 9);
    const at::Tensor weight = normal({width}, dtype(), 10);
    at::Tensor got = at::empty_like(x);
    typed().rms_norm(x.const_data_ptr(), weight.const_data_ptr(), got.mutable_data_ptr(), width, 1e-6F, 0, 2);
    typed().rms_norm(x.const_data_ptr(), weight.const_data_ptr(), got.mutable_data_ptr(), width, 1e-6F, 2, 5);
    const at::Tensor wide = x.to(at::kFloat);
    const at::Tensor normed = wide * at::rsqrt(wide.pow(2).mean(-1, true) + 1e-6);
    expect_close(got, weight * normed.to(dtype()), tolerance(dtype()));
  }
}

TEST_P(KernelTest, SiluMulEqualsLibtorch) {
  for (const int64_t width : {1, 15, 16, 37, 100}) {
    SCOPED_TRACE(width);
    const at::Tensor gate = normal({3, width}, dtype(), 11) * 20;
    const at::Tensor up = normal({3, width}, dtype(), 12);
    at::Tensor got = at::empty_like(gate);
    typed().silu_mul(gate.const_data_ptr(), up.const_data_ptr(), got.mutable_data_ptr(), width, 0, 3);
    expect_close(got, at::silu(gate) * up, 2 * tolerance(dtype()));
  }
}

TEST_P(KernelTest, SiluMulOfExtremeValuesIsFinite) {
  const at::Tensor gate =
      at::tensor({-60000.0, -200.0, -88.0, 0.0, 88.0, 200.0, 60000.0}, at::kFloat).to(dtype());
  const at::Tensor up = at::ones_like(gate);
  at::Tensor got = at::empty_like(gate);
  typed().silu_mul(gate.const_data_ptr(), up.const_data_ptr(), got.mutable_data_ptr(), 7, 0, 1);
  expect_close(got, at::silu(gate.to(at::kFloat)), tolerance(dtype()));
}

TEST_P(KernelTest, RopeRotatesHalves) {
  for (const int64_t head_dim : {2, 8, 34, 64, 80}) {
    SCOPED_TRACE(head_dim);
    constexpr int64_t kHeads = 3;
    const int64_t half = head_dim / 2;
    const at::Tensor x = normal({kHeads, head_dim}, dtype(), 13);
    const at::Tensor angles = normal({half}, at::kFloat, 14);
    const at::Tensor cosines = angles.cos().to(dtype()).to(at::kFloat);
    const at::Tensor sines = angles.sin().to(dtype()).to(at::kFloat);
    at::Tensor strided = at::zeros({kHeads, 2 * head_dim}, x.options());
    typed().rope({x.const_data_ptr(), strided.mutable_data_ptr(), kHeads, head_dim, 2 * head_dim, head_dim,
                  cosines.const_data_ptr<float>(), sines.const_data_ptr<float>()});
    const at::Tensor turned = at::cat({-x.slice(1, half), x.slice(1, 0, half)}, 1);
    const at::Tensor want =
        x * at::cat({cosines, cosines}).to(dtype()) + turned * at::cat({sines, sines}).to(dtype());
    expect_close(strided.slice(1, 0, head_dim), want, tolerance(dtype()));
    EXPECT_EQ(strided.slice(1, head_dim).abs().sum().item<float>(), 0) << "wrote behind a head";
    at::Tensor in_place = x.clone();
    typed().rope({in_place.const_data_ptr(), in_place.mutable_data_ptr(), kHeads, head_dim, head_dim,
                  head_dim, cosines.const_data_ptr<float>(), sines.const_data_ptr<float>()});
    EXPECT_TRUE(at::equal(in_place, strided.slice(1, 0, head_dim)));
  }
}

TEST_P(KernelTest, AttentionEqualsLibtorch) {
  constexpr int64_t kCapacity = 70;
  for (const int64_t head_dim : {2, 8, 34, 64, 128, 136}) {
    for (const int64_t group : {1, 3}) {
      for (const auto& [begin, end] :
           std::vector<std::pair<int64_t, int64_t>>{{0, 1}, {0, 16}, {3, 4}, {5, 42}, {0, 70}}) {
        SCOPED_TRACE("head " + std::to_string(head_dim) + ", group " + std::to_string(group) +
                     ", positions " + std::to_string(begin) + " to " + std::to_string(end));
        constexpr int64_t kKvHeads = 2;
        const at::Tensor query = normal({kKvHeads * group, head_dim}, dtype(), 15);
        const at::Tensor keys = normal({kKvHeads, kCapacity, head_dim}, dtype(), 16);
        const at::Tensor values = normal({kKvHeads, kCapacity, head_dim}, dtype(), 17);
        at::Tensor got = at::empty_like(query);
        const double scale = 1 / std::sqrt(static_cast<double>(head_dim));
        const cpu::AttentionArgs args = {query.const_data_ptr(),
                                         keys.const_data_ptr(),
                                         values.const_data_ptr(),
                                         got.mutable_data_ptr(),
                                         kKvHeads * group,
                                         kKvHeads,
                                         head_dim,
                                         kCapacity,
                                         begin,
                                         end,
                                         static_cast<float>(scale)};
        std::vector<float> scratch(static_cast<size_t>(group * (end - begin)));
        for (int64_t head = 0; head < kKvHeads; ++head) typed().attention(args, head, scratch.data());
        const at::Tensor seen_keys = keys.slice(1, begin, end).to(at::kDouble).repeat_interleave(group, 0);
        const at::Tensor seen_values =
            values.slice(1, begin, end).to(at::kDouble).repeat_interleave(group, 0);
        const at::Tensor scores = (seen_keys * query.to(at::kDouble).unsqueeze(1)).sum(-1) * scale;
        const at::Tensor want = (scores.softmax(-1).unsqueeze(-1) * seen_values).sum(1);
        expect_close(got, want, tolerance(dtype()));
      }
    }
  }
}

std::string name_of(const testing::TestParamInfo<KernelTest::ParamType>& info) {
  return std::string(cpu::supported_kernels()[std::get<0>(info.param)]->name) + "_" +
         c10::toString(std::get<1>(info.param));
}

INSTANTIATE_TEST_SUITE_P(All, KernelTest,
                         testing::Combine(testing::Range<size_t>(0, cpu::supported_kernels().size()),
                                          testing::Values(at::kFloat, at::kBFloat16, at::kHalf)),
                         name_of);

}  // namespace
}  // namespace omni
