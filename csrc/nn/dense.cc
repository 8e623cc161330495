#include "nn/dense.h"

#include <ATen/ATen.h>
#include <ATen/core/List.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>
#include <string_view>

namespace omni {
namespace {

using LinearPointwise = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
                                   std::string_view, c10::List<std::optional<at::Scalar>>,
                                   std::optional<std::string_view>);

// oneDNN's linear layer, which torch registers but gives no C++ function. None if this torch was built without it.
const std::optional<c10::TypedOperatorHandle<LinearPointwise>>& linear_pointwise() {
  static const auto handle = []() -> std::optional<c10::TypedOperatorHandle<LinearPointwise>> {
    if (!at::hasMKLDNN()) return std::nullopt;
    const auto schema = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
    if (!schema) return std::nullopt;
    return schema->typed<LinearPointwise>();
  }();
  return handle;
}

}  // namespace

at::Tensor dense(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                 DenseActivation activation) {
  const auto& handle = linear_pointwise();
  if (!x.is_cpu() || x.scalar_type() != at::kFloat || !handle)
    return dense_plain(x, weight, bias, activation);
  const bool gelu = activation == DenseActivation::kGeluTanh;
  return handle->call(x, weight, bias, gelu ? "gelu" : "none", c10::List<std::optional<at::Scalar>>(),
                      gelu ? "tanh" : "");
}

at::Tensor dense_plain(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                       DenseActivation activation) {
  at::Tensor y = at::linear(x, weight, bias);
  return activation == DenseActivation::kGeluTanh ? at::gelu_(y, "tanh") : y;
}

void DenseLayer::bind(const WeightPath& path, int64_t in, int64_t out) {
  path.bind(weight, "weight", {out, in});
  path.bind(bias, "bias", {out});
}

at::Tensor DenseLayer::forward(const at::Tensor& x, DenseActivation activation) const {
  return dense(x, weight, bias, activation);
}

}  // namespace omni
