// Measurements in pairs.
#include "profiler/op_cost.h"

#include <ATen/ATen.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <vector>

namespace omni {
namespace {

double block_ns(const at::Tensor& tensor) {
  const auto began = std::chrono::steady_clock::now();
  for (int i = 0; i < kOpCostCalls; ++i) tensor.is_same_size(tensor);
  return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - began).count() /
         kOpCostCalls;
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double measure_dispatch_ns(bool inputs) {
  constexpr int kPairs = 25;
  const at::Tensor tensor = at::empty({1});
  block_ns(tensor);
  std::vector<double> differences;
  for (int i = 0; i < kPairs; ++i) {
    const double without = block_ns(tensor);
    at::RecordFunctionCallback callback(
        [](const at::RecordFunction&) -> std::unique_ptr<at::ObserverContext> { return nullptr; },
        [](const at::RecordFunction&, at::ObserverContext*) {});
    const at::CallbackHandle handle = at::addThreadLocalCallback(callback.needsInputs(inputs));
    const double with = block_ns(tensor);
    at::removeCallback(handle);
    differences.push_back(with - without);
  }
  return std::max(0.0, median(std::move(differences)));
}

}  // namespace

double trivial_op_ns(int blocks) {
  const at::Tensor tensor = at::empty({1});
  std::vector<double> times;
  for (int i = 0; i < blocks; ++i) times.push_back(block_ns(tensor));
  return median(std::move(times));
}

double dispatch_ns(bool inputs) {
  if (inputs) {
    static const double with_inputs = measure_dispatch_ns(true);
    return with_inputs;
  }
  static const double without = measure_dispatch_ns(false);
  return without;
}

}  // namespace omni
