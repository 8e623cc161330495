// A device that is not the CPU, without hardware: its memory faults when the host touches it, and every op complains of
// tensors that are elsewhere, as CUDA does. Engines that run on it run on cuda:N, as far as devices are concerned.
//
// It is torch's PrivateUse1. Memory lies in the host's RAM under addresses that no processor accepts; each op maps its
// tensors back and runs torch's CPU kernel on them.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/Allocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <cstdint>
#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace omni::host_blind {

inline const at::Device kDevice(at::kPrivateUse1, 0);

// Bit 62 makes an address that faults.
constexpr uintptr_t kHidden = uintptr_t{1} << 62;

inline void* hide(void* real) {
  return real == nullptr ? nullptr : reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(real) | kHidden);
}
inline void* reveal(const void* hidden) {
  return hidden == nullptr ? nullptr
                           : reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(hidden) & ~kHidden);
}

class Allocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* const hidden = hide(std::aligned_alloc(64, (bytes + 64) / 64 * 64));
    return {hidden, hidden, [](void* pointer) { std::free(reveal(pointer)); }, kDevice};
  }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    std::memcpy(reveal(to), reveal(from), bytes);
  }
};

class Hooks final : public at::PrivateUse1HooksInterface {
 public:
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
};

// The same memory as a tensor of the CPU.
inline at::Tensor on_host(const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.device() != kDevice) return tensor;
  const c10::Storage& storage = tensor.storage();
  c10::DataPtr data(reveal(storage.data()), at::Device(at::kCPU));
  c10::Storage alias(c10::Storage::use_byte_size_t(), storage.nbytes(), std::move(data),
                     c10::GetAllocator(at::kCPU), /*resizable=*/true);
  at::Tensor host = at::detail::make_tensor<c10::TensorImpl>(
      std::move(alias), c10::DispatchKeySet(c10::DispatchKey::CPU), tensor.dtype());
  host.unsafeGetTensorImpl()->set_sizes_and_strides(tensor.sizes(), tensor.strides(),
                                                    tensor.storage_offset());
  return host;
}

// One call of an op: arguments to the host, results back.
class Call {
 public:
  explicit Call(const c10::OperatorHandle& op) : name_(op.schema().name()) {}

  void take(c10::IValue& value) {
    if (value.isTensor()) {
      value = take(value.toTensor());
    } else if (value.isTensorList()) {
      std::vector<at::Tensor> tensors;
      for (const at::Tensor& tensor : value.toTensorVector()) tensors.push_back(take(tensor));
      value = c10::IValue(c10::List<at::Tensor>(tensors));
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> tensors;
      for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorVector())
        tensors.push_back(tensor ? std::optional<at::Tensor>(take(*tensor)) : std::nullopt);
      value = c10::IValue(tensors);
    } else if (value.isDevice()) {
      to_host_ = value.toDevice().is_cpu();
      if (value.toDevice() == kDevice) value = c10::IValue(at::Device(at::kCPU));
    }
  }

  // Copies are what devices are joined by; a number may come from anywhere.
  void check() const {
    const bool copies = name_ == "aten::copy_" || name_ == "aten::_to_copy";
    if (copies || elsewhere_.empty()) return;
    throw std::runtime_error(name_ + ": expected all tensors on " + kDevice.str() + ", found " + elsewhere_);
  }

  // Results of ops that made an argument larger.
  void settle() const {
    for (const auto& [host, tensor] : taken_) {
      c10::TensorImpl* const impl = tensor.unsafeGetTensorImpl();
      if (host.storage().data() != reveal(tensor.storage().data())) {
        const size_t bytes = host.storage().nbytes();
        c10::DataPtr data = c10::GetAllocator(at::kPrivateUse1)->allocate(bytes);
        std::memcpy(reveal(data.get()), host.storage().data(), bytes);
        impl->unsafe_storage().set_data_ptr_noswap(std::move(data));
        impl->unsafe_storage().set_nbytes(bytes);
      }
      if (host.sizes() != tensor.sizes() || host.strides() != tensor.strides())
        impl->set_sizes_and_strides(host.sizes(), host.strides(), host.storage_offset());
    }
  }

  void give(c10::IValue& value) const {
    if (value.isTensor()) {
      value = give(value.toTensor());
    } else if (value.isTensorList()) {
      std::vector<at::Tensor> tensors;
      for (const at::Tensor& tensor : value.toTensorVector()) tensors.push_back(give(tensor));
      value = c10::IValue(c10::List<at::Tensor>(tensors));
    }
  }

 private:
  at::Tensor take(const at::Tensor& tensor) {
    if (!tensor.defined()) return tensor;
    if (tensor.device() != kDevice) {
      if (tensor.dim() > 0) elsewhere_ = tensor.device().str() + " " + c10::str(tensor.sizes());
      return tensor;
    }
    at::Tensor host = on_host(tensor);
    taken_.emplace_back(host, tensor);
    return host;
  }

  at::Tensor give(const at::Tensor& result) const {
    if (!result.defined() || !result.is_cpu() || to_host_) return result;
    for (const auto& [host, tensor] : taken_) {
      if (host.is_same(result)) return tensor;  // an op in place
    }
    for (const auto& [host, tensor] : taken_) {
      if (result.storage().unsafeGetStorageImpl() != host.storage().unsafeGetStorageImpl()) continue;
      at::Tensor view = at::detail::make_tensor<c10::TensorImpl>(
          c10::Storage(tensor.storage()), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), result.dtype());
      view.unsafeGetTensorImpl()->set_sizes_and_strides(result.sizes(), result.strides(),
                                                        result.storage_offset());
      return view;
    }
    return moved(result);
  }

  static at::Tensor moved(const at::Tensor& host) {
    c10::Allocator* const allocator = c10::GetAllocator(at::kPrivateUse1);
    const size_t bytes = host.storage().nbytes();
    c10::Storage storage(c10::Storage::use_byte_size_t(), bytes, allocator->allocate(bytes), allocator,
                         /*resizable=*/true);
    if (bytes > 0) std::memcpy(reveal(storage.data()), host.storage().data(), bytes);
    at::Tensor tensor = at::detail::make_tensor<c10::TensorImpl>(
        std::move(storage), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), host.dtype());
    tensor.unsafeGetTensorImpl()->set_sizes_and_strides(host.sizes(), host.strides(), host.storage_offset());
    return tensor;
  }

  std::string name_;
  bool to_host_ = false;  // the op was asked for a result on the CPU
  std::string elsewhere_;
  std::vector<std::pair<at::Tensor, at::Tensor>> taken_;
};

inline void run_on_host(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack) {
  Call call(op);
  const size_t arguments = op.schema().arguments().size();
  for (size_t i = stack->size() - arguments; i < stack->size(); ++i) call.take((*stack)[i]);
  call.check();
  op.callBoxed(stack);
  call.settle();
  const size_t results = op.schema().returns().size();
  for (size_t i = stack->size() - results; i < stack->size(); ++i) call.give((*stack)[i]);
}

// The one op that must know of two devices.
inline at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool /*non_blocking*/) {
  on_host(to).copy_(on_host(from));
  return to;
}

// Convolutions choose their kernel by the device, and leave it to those that torch does not know.
inline at::Tensor convolution(const at::Tensor& input, const at::Tensor& weight,
                              const std::optional<at::Tensor>& bias, at::IntArrayRef stride,
                              at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed,
                              at::IntArrayRef output_padding, int64_t groups) {
  const bool biased = bias.has_value() && bias->defined();
  if (input.device() != kDevice || weight.device() != kDevice || (biased && bias->device() != kDevice))
    throw std::runtime_error("convolution: expected all tensors on " + kDevice.str());
  return at::convolution(on_host(input), on_host(weight), biased ? on_host(*bias) : at::Tensor(), stride,
                         padding, dilation, transposed, output_padding, groups)
      .to(kDevice);
}

// Puts the device into this process. Once, before its first use.
inline void install() {
  static Allocator allocator;
  static Hooks hooks;
  static const c10::impl::NoOpDeviceGuardImpl<at::kPrivateUse1> guard;
  static const c10::impl::DeviceGuardImplRegistrar registrar(at::kPrivateUse1, &guard);
  static torch::Library library(torch::Library::IMPL, "_", c10::DispatchKey::PrivateUse1, __FILE__, __LINE__);
  static torch::Library aten(torch::Library::IMPL, "aten", c10::DispatchKey::PrivateUse1, __FILE__, __LINE__);
  static const bool installed = [] {
    c10::SetAllocator(at::kPrivateUse1, &allocator);
    at::RegisterPrivateUse1HooksInterface(&hooks);
    library.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_host>());
    aten.impl("_copy_from", &copy_from);
    aten.impl("convolution_overrideable", &convolution);
    return true;
  }();
  (void)installed;
}

}  // namespace omni::host_blind
