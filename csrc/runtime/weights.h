// Binds the tensors of a network to names of a checkpoint, checks them all at once, then loads them in parts.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/checkpoint.h"

namespace omni {

// The list of tensors that one engine needs. A network's constructor binds its members through a WeightPath; then
// check() compares names and shapes with the checkpoint's headers, and load_next() fills the members one after
// another. A tensor whose dtype in the file is the wanted one, on the CPU, is a view of the mapped file (no copy;
// the view keeps the Checkpoint alive); otherwise it is converted once. Bound members must not move until loading
// has ended. [torch thread]
class Weights {
 public:
  Weights(std::shared_ptr<const Checkpoint> checkpoint, at::Device device);

  void bind(at::Tensor* slot, std::string name, std::vector<int64_t> shape, at::ScalarType dtype,
            bool optional);

  // Throws one INVALID_ARGUMENT that lists every missing and every mis-shaped tensor (the first 20), with file, name,
  // expected and found.
  void check() const;
  // Loads the next few tensors (about 64 MB). Returns false when all were loaded already.
  bool load_next();
  int64_t bytes_done() const;
  int64_t bytes_total() const;
  int64_t parameters() const;  // elements bound

  // How many tensors under prefix nothing was bound to.
  int64_t unused_under(std::string_view prefix) const;

  const Checkpoint& checkpoint() const { return *checkpoint_; }
  at::Device device() const { return device_; }

 private:
  struct Slot {
    at::Tensor* tensor;
    std::string name;
    std::vector<int64_t> shape;
    at::ScalarType dtype;
    bool optional;
  };
  std::shared_ptr<const Checkpoint> checkpoint_;
  at::Device device_;
  std::vector<Slot> slots_;
  size_t next_ = 0;
  int64_t bytes_done_ = 0;
};

// A place in the checkpoint's name space: path / "layers" / 3 / "mlp" names its children as the checkpoint does.
// Carries the dtype that the weights below it are to have.
class WeightPath {
 public:
  WeightPath(Weights* weights, std::string prefix, at::ScalarType dtype);

  WeightPath operator/(std::string_view part) const;
  WeightPath operator/(int64_t index) const;
  WeightPath with_dtype(at::ScalarType dtype) const;

  // Binds slot to "<prefix>.<name>" of exactly this shape.
  void bind(at::Tensor& slot, std::string_view name, std::vector<int64_t> shape) const;
  // The same, but a tensor that is missing leaves the slot undefined.
  void bind_optional(at::Tensor& slot, std::string_view name, std::vector<int64_t> shape) const;

  const std::string& prefix() const { return prefix_; }
  at::ScalarType dtype() const { return dtype_; }
  at::Device device() const { return weights_->device(); }

 private:
  Weights* weights_;
  std::string prefix_;
  at::ScalarType dtype_;
};

}  // namespace omni
