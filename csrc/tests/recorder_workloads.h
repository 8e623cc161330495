// Ops of every kind that a recorder must see, for tests that compare recorders.
#pragma once

#include <ATen/ATen.h>
#include <ATen/ThreadLocalState.h>

#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "profiler/scope.h"

namespace omni::workloads {

inline void matrices() {
  const at::Tensor a = at::ones({16, 8}), b = at::ones({8, 4}), v = at::ones({4});
  at::addmm(v, a, b, 1, 0.5);
  at::bmm(a.view({4, 4, 8}), b.expand({4, 8, 4}));
  at::baddbmm(at::zeros({4, 4, 4}), a.view({4, 4, 8}), b.expand({4, 8, 4}), -1.5, 2);
  at::einsum("ij,jk->ik", {a, b});
  at::linear(a, b.t(), v);
  at::softmax(a, -1).mul(3).add(a, 1e-12).sub_(1e30);
}

inline void types() {
  for (const auto dtype :
       {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16, at::kLong, at::kInt, at::kShort, at::kByte,
        at::kChar, at::kBool, at::kComplexFloat, at::kComplexDouble, at::kFloat8_e4m3fn}) {
    at::zeros({2, 3}, dtype).to(at::kFloat).to(dtype).clone();
  }
  at::ones({2}, at::kComplexFloat).mul(c10::complex<double>(1.5, -2)).add(c10::complex<double>(0, 1));
  at::quantize_per_tensor(at::ones({4}), 0.1, 10, at::kQInt8).dequantize();
}

inline void shapes() {
  at::Tensor scalar = at::scalar_tensor(7.25);
  scalar.add(scalar).sum();
  at::zeros({0, 5}).sum({0}, true);
  at::ones({1}).expand({3, 4}).contiguous();
  at::arange(24).view({2, 3, 4}).permute({2, 0, 1}).flip({0, -1}).select(0, 1);
  at::empty({int64_t{1} << 33, 2}, at::TensorOptions(at::kMeta)).t().add(1);
  at::ones({3, 3}).to_sparse().coalesce().to_dense();
  at::ones({2, 1, 1, 1, 1, 1, 1, 2}).squeeze().unsqueeze(-1);
}

inline void lists() {
  const std::vector<at::Tensor> few(3, at::ones({2, 2})), many(40, at::ones({1})),
      none_of_size(2, at::ones({0}));
  at::cat(few, 1);
  at::stack(many);
  at::cat(none_of_size);
  at::ones({6}).split_with_sizes({1, 2, 3});
  at::ones({40}).split_with_sizes(std::vector<int64_t>(40, 1));
  at::ones({4, 4}).index({at::ones({2}, at::kLong), at::indexing::None});
  at::upsample_bilinear2d(at::ones({1, 1, 2, 2}), std::vector<int64_t>{4, 4}, false, std::nullopt,
                          std::nullopt);
  at::ones({1, 2, 4}).clamp(std::nullopt, 0.5).clamp(-1e-300, 12345678901.0);
}

inline void convolutions() {
  const at::Tensor x = at::ones({1, 4, 64});
  at::conv1d(x, at::ones({8, 4, 7}), {}, 2, 3);
  at::conv_transpose1d(x, at::ones({4, 2, 4}), {}, 2, 1);
  at::conv2d(at::ones({2, 4, 10, 12}), at::ones({6, 2, 3, 5}), at::ones({6}), {1, 2}, {1, 0}, {2, 1}, 2);
  at::scaled_dot_product_attention(at::ones({1, 2, 5, 8}), at::ones({1, 2, 7, 8}), at::ones({1, 2, 7, 8}));
  at::layer_norm(x, {64});
  at::rms_norm(x, {64}, at::ones({64}), 1e-6);
}

inline void scopes() {
  for (int i = 0; i < 3; ++i) {
    const Scope layer("thinker.layers." + std::to_string(i));
    {
      const Scope part("thinker.layers." + std::to_string(i) + ".self_attn");
    }
    const Scope odd("name \"with\" quotes");
    at::ones({2});
  }
}

// Threads that get torch's thread-local state record too, and go away before the end.
inline void threads() {
  const at::ThreadLocalState state;
  for (int i = 0; i < 3; ++i) {
    std::thread([&state] {
      const at::ThreadLocalStateGuard guard(state);
      const Scope scope("on another thread");
      matrices();
    }).join();
  }
}

// Scopes that are no ops, autograd's sequence numbers, threads of forward ops.
inline void gradients() {
  const at::Tensor x = at::ones({3, 3}).requires_grad_();
  at::mm(x, x).sin().sum().backward();
}

// Views and in-place ops, whose outputs are their inputs.
inline void views() {
  at::Tensor x = at::arange(60, at::kFloat).view({3, 4, 5});
  x.select(1, 2).narrow(1, 1, 3).mul_(2).add_(x.select(1, 0).slice(1, 0, 3), -0.5);
  x.transpose(0, 2).unfold(1, 2, 1).diagonal(0, 0, 1).fill_(1.5);
  x.index_put_({at::tensor({0, 2})}, at::ones({4, 5}), /*accumulate=*/true);
  x.as_strided({2, 2}, {20, 1}, 3).copy_(at::zeros({2, 2}, at::kHalf));
  at::chunk(x, 3, 0)[1].squeeze(0).t().contiguous().resize_({10, 2});
  at::Tensor out = at::empty({0});
  at::add_out(out, x, x, 3);
}

// Arguments that are strings, none, generators, devices, dtypes, memory formats.
inline void odd_arguments() {
  at::linalg_norm(at::ones({3, 3}), "fro");
  at::linalg_norm(at::ones({4}), std::nullopt, std::nullopt, false, at::kDouble);
  at::gelu(at::ones({4}), "tanh");
  at::div(at::ones({4}), 3, "floor");
  at::meshgrid({at::ones({2}), at::ones({3})}, "xy");
  at::index(at::ones({3, 4, 5}), {std::nullopt, at::tensor({0, 1}), at::tensor({2, 2})});
  at::conv1d(at::ones({1, 2, 8}), at::ones({4, 2, 3}), {}, 1, "same");
  at::clamp(at::ones({3}), std::optional<at::Tensor>(at::zeros({3})), std::optional<at::Tensor>());
  at::randn({4}, at::make_generator<at::CPUGeneratorImpl>(3)).to(at::kBFloat16, false, true);
  at::ones({1, 2, 3, 4})
      .contiguous(at::MemoryFormat::ChannelsLast)
      .sum(at::IntArrayRef{1, 3}, true, at::kDouble);
  at::ones({2, 2}).to(at::Device("cpu"), at::kInt).toString();
}

// Ops that throw in the middle, alone and inside of others.
inline void failures() {
  const auto fails = [](auto&& run) {
    try {
      run();
    } catch (const c10::Error&) {
      at::zeros({1});
    }
  };
  fails([] { at::mm(at::ones({2, 3}), at::ones({2, 3})); });
  fails([] { at::cat({at::ones({2, 3}), at::ones({3, 2})}, 1); });
  fails([] { at::linear(at::ones({2, 3}), at::ones({4, 5}), at::ones({4})); });
  fails([] { at::einsum("ij,jk->ik", {at::ones({2, 3}), at::ones({2, 3})}); });
  fails([] {
    const Scope scope("a module that fails");
    at::ones({4}).view({3, 2});
  });
}

// Backward passes inside of backward passes.
inline void second_gradients() {
  const at::Tensor x = at::ones({4, 4}).requires_grad_();
  const at::Tensor y = at::tanh(at::mm(x, x.t())).sum();
  y.backward({}, /*retain_graph=*/true, /*create_graph=*/true);
  const at::Tensor g = x.grad().pow(2).sum();
  x.mutable_grad() = at::Tensor();
  g.backward();
}

}  // namespace omni::workloads
