// Inputs of ops, from torch's values into memory: the half of the format that the hot path runs. The other half is in
// stream_inputs.h.
#pragma once

#include <ATen/core/ivalue.h>
#include <c10/core/TensorImpl.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "profiler/stream_record.h"

namespace omni::stream {

// Appends values below a limit; after the first that does not fit, nothing more.
class Encoder {
 public:
  Encoder(std::byte* begin, std::byte* limit) : at_(begin), limit_(limit) {}

  template <typename T>
  void put(const T& value) {
    if (limit_ - at_ < static_cast<ptrdiff_t>(sizeof value)) {
      limit_ = at_;
      full_ = true;
      return;
    }
    std::memcpy(at_, &value, sizeof value);
    at_ += sizeof value;
  }

  void inputs(c10::ArrayRef<const c10::IValue> values) {
    for (const c10::IValue& value : values) input(value);
    put(Tag::kEnd);
  }

  bool full() const { return full_; }
  std::byte* at() const { return at_; }

 private:
  void input(const c10::IValue& value) {
    if (value.isTensor()) {
      tensor(value.toTensor());
    } else if (value.isScalar()) {
      scalar(value);
    } else if (value.isList()) {
      list(value.toListRef(), value.isTensorList());
    } else {
      put(Tag::kOther);
    }
  }

  void tensor(const at::Tensor& tensor) {
    const c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
    if (!tensor.defined() || impl->has_symbolic_sizes_strides() || tensor.is_nested()) {
      put(Tag::kUndefined);
      return;
    }
    const c10::IntArrayRef sizes = tensor.sizes();
    const bool strided = tensor.layout() == at::kStrided;
    const c10::IntArrayRef strides = strided ? tensor.strides() : c10::IntArrayRef();
    uint64_t bits = 0;
    for (const int64_t n : sizes) bits |= static_cast<uint64_t>(n);
    for (const int64_t n : strides) bits |= static_cast<uint64_t>(n);
    const bool wide = bits > std::numeric_limits<uint32_t>::max();
    const struct {
      Tag tag;
      int8_t dtype;
      uint8_t dims;
      uint8_t form;
    } head = {Tag::kTensor, static_cast<int8_t>(tensor.scalar_type()), static_cast<uint8_t>(sizes.size()),
              static_cast<uint8_t>((strided ? kStrided : 0) | (wide ? kWide : 0))};
    put(head);
    dims(sizes, wide);
    dims(strides, wide);
  }

  void dims(c10::IntArrayRef values, bool wide) {
    for (const int64_t value : values) {
      if (wide) {
        put(value);
      } else {
        put(static_cast<uint32_t>(value));
      }
    }
  }

  void scalar(const c10::IValue& value) {
    if (value.isInt()) {
      put(Tag::kInt);
      put(value.toInt());
    } else if (value.isDouble()) {
      put(Tag::kDouble);
      put(value.toDouble());
    } else if (value.isBool()) {
      put(Tag::kBool);
      put(static_cast<uint8_t>(value.toBool()));
    } else if (value.isComplexDouble()) {
      put(Tag::kComplex);
      put(value.toComplexDouble());
    } else {
      put(Tag::kOther);  // a symbol, which has no value
    }
  }

  void list(c10::ArrayRef<c10::IValue> values, bool tensors) {
    if (tensors) {
      if (values.size() > kMaxList) {
        put(Tag::kLongList);
        return;
      }
      put(Tag::kTensorList);
      for (const c10::IValue& value : values) tensor(value.toTensor());
      put(Tag::kEnd);
      return;
    }
    if (values.size() > kMaxList || (!values.empty() && !values[0].isScalar())) {
      put(Tag::kOther);
      return;
    }
    if (values.empty() || values[0].isInt()) {
      put(Tag::kIntList);
      put(static_cast<uint8_t>(values.size()));
      for (const c10::IValue& value : values) put(value.isInt() ? value.toInt() : int64_t{0});
      return;
    }
    put(Tag::kScalarList);
    for (const c10::IValue& value : values) scalar(value);
    put(Tag::kEnd);
  }

  std::byte* at_;
  std::byte* limit_;
  bool full_ = false;
};

}  // namespace omni::stream
