// Reads the files that Python's torch.save writes, as plain values and tensors.
//
// torch::jit::pickle_load trusts such a file: a storage that is larger in the pickle than in its record is read past
// its end. This reader knows the few opcodes and the three functions that a dict of numbers, strings and tensors
// needs, runs nothing else, and checks every size.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace omni {

struct PickleContainer;

// A value of the file. Containers are borrowed from the PickleFile that they came from.
class PickleValue {
 public:
  using Storage =
      std::variant<std::monostate, bool, int64_t, double, std::string, at::Tensor, const PickleContainer*>;

  PickleValue() = default;
  explicit PickleValue(Storage value) : value_(std::move(value)) {}

  const bool* boolean() const { return std::get_if<bool>(&value_); }
  const int64_t* integer() const { return std::get_if<int64_t>(&value_); }
  const double* number() const { return std::get_if<double>(&value_); }
  const std::string* string() const { return std::get_if<std::string>(&value_); }
  const at::Tensor* tensor() const { return std::get_if<at::Tensor>(&value_); }
  // The entries of a dict, nullptr if this is none.
  const std::vector<std::pair<PickleValue, PickleValue>>* dict() const;
  // The items of a list or tuple, nullptr if this is none.
  const std::vector<PickleValue>* items() const;
  // The value under a string key; nullptr if this is no dict or has no such key.
  const PickleValue* find(std::string_view key) const;

  // "a dict of 3", "a float32 tensor [1, 192]": for messages.
  std::string describe() const;

 private:
  Storage value_;
};

struct PickleContainer {
  enum class Kind { kDict, kList, kTuple };
  Kind kind;
  std::vector<std::pair<PickleValue, PickleValue>> entries;  // of a dict, in the order of the file
  std::vector<PickleValue> items;                            // of a list or tuple
};

// One file, read whole. Tensors are contiguous and own their memory. Every fault is a NOT_FOUND or INVALID_ARGUMENT
// that names the file and, inside the pickle, the offset.
class PickleFile {
 public:
  explicit PickleFile(const std::string& path);
  PickleFile(const PickleFile&) = delete;  // values point into it
  PickleFile& operator=(const PickleFile&) = delete;

  const std::string& path() const { return path_; }
  const PickleValue& root() const { return root_; }

 private:
  std::string path_;
  std::deque<PickleContainer> containers_;
  PickleValue root_;
};

}  // namespace omni
