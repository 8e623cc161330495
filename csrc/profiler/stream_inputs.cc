// Inputs of ops, from memory to text.
#include "profiler/stream_inputs.h"

#include <ATen/core/ivalue.h>
#include <c10/core/ScalarType.h>
#include <c10/util/complex.h>

#include <cstring>
#include <functional>
#include <sstream>
#include <string_view>

#include "profiler/json_text.h"
#include "profiler/stream_record.h"

namespace omni::stream {
namespace {

class Decoder {
 public:
  explicit Decoder(const std::byte* at) : at_(at) {}

  template <typename T>
  T get() {
    T value;
    std::memcpy(&value, at_, sizeof value);
    at_ += sizeof value;
    return value;
  }

  int64_t dim(bool wide) { return wide ? get<int64_t>() : int64_t{get<uint32_t>()}; }

 private:
  const std::byte* at_;
};

struct TensorHead {
  at::ScalarType dtype;
  size_t dims;
  bool strided;
  bool wide;
};

TensorHead tensor_head(Decoder& in) {
  const auto dtype = static_cast<at::ScalarType>(in.get<int8_t>());
  const size_t dims = in.get<uint8_t>();
  const auto form = in.get<uint8_t>();
  return {dtype, dims, (form & kStrided) != 0, (form & kWide) != 0};
}

// torch's own names of types: float, long int, c10::BFloat16.
std::string_view type_name(at::ScalarType dtype) {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (int i = 0; i < static_cast<int>(at::ScalarType::NumOptions); ++i) {
      const auto candidate = static_cast<at::ScalarType>(i);
      const bool typed = candidate != at::ScalarType::Undefined;
      all.emplace_back(typed ? std::string(c10::scalarTypeToTypeMeta(candidate).name()) : std::string());
    }
    return all;
  }();
  return names[static_cast<size_t>(dtype)];
}

void append_comma(std::string& out) {
  if (!out.empty() && out.back() != '[') out += ", ";
}

// The four lists of a trace's inputs, filled together.
class InputLists {
 public:
  void tensor(Decoder& in) {
    const TensorHead head = tensor_head(in);
    next();
    append_shape(in, dims_, head, true);
    append_shape(in, strides_, head, head.strided);
    append_json_string(types_, type_name(head.dtype));
    concrete_ += "\"\"";
  }

  void tensor_list(Decoder& in) {
    next();
    dims_ += '[';
    strides_ += '[';
    for (Tag tag = in.get<Tag>(); tag != Tag::kEnd; tag = in.get<Tag>()) {
      append_comma(dims_);
      append_comma(strides_);
      if (tag == Tag::kTensor) {
        const TensorHead head = tensor_head(in);
        append_shape(in, dims_, head, true);
        append_shape(in, strides_, head, head.strided);
      } else {
        dims_ += "[]";
        strides_ += "[]";
      }
    }
    dims_ += ']';
    strides_ += ']';
    types_ += "\"TensorList\"";
    concrete_ += "\"\"";
  }

  // Anything without sizes: its type, and the value as torch prints it.
  void value(std::string_view type, std::string_view text) {
    next();
    dims_ += "[]";
    strides_ += "[]";
    append_json_string(types_, type);
    append_json_string(concrete_, text);
  }

  void append_to(std::string& out) {
    out += "\"Input Dims\":";
    out += dims_;
    out += "],\"Input type\":";
    out += types_;
    out += "],\"Input Strides\":";
    out += strides_;
    out += "],\"Concrete Inputs\":";
    out += concrete_;
    out += ']';
  }

  void clear() {
    for (std::string* list : {&dims_, &strides_, &types_, &concrete_}) list->assign(1, '[');
  }

 private:
  void next() {
    for (std::string* list : {&dims_, &strides_, &types_, &concrete_}) append_comma(*list);
  }

  static void append_shape(Decoder& in, std::string& out, const TensorHead& head, bool present) {
    out += '[';
    for (size_t i = 0; present && i < head.dims; ++i) {
      if (i > 0) out += ", ";
      append_json_int(out, in.dim(head.wide));
    }
    out += ']';
  }

  std::string dims_ = "[";
  std::string strides_ = "[";
  std::string types_ = "[";
  std::string concrete_ = "[";
};

// Floating point numbers have their own rules, for which torch is asked.
std::string torch_text(const c10::IValue& value) {
  std::ostringstream text;
  text << value;
  return text.str();
}

void append_scalar(std::string& out, Tag tag, Decoder& in) {
  switch (tag) {
    case Tag::kInt:
      append_json_int(out, in.get<int64_t>());
      return;
    case Tag::kBool:
      out += in.get<uint8_t>() != 0 ? "True" : "False";
      return;
    case Tag::kDouble:
      out += torch_text(c10::IValue(in.get<double>()));
      return;
    case Tag::kComplex:
      out += torch_text(c10::IValue(in.get<c10::complex<double>>()));
      return;
    default:
      return;
  }
}

std::string int_list_text(Decoder& in) {
  std::string text = "[";
  const size_t count = in.get<uint8_t>();
  for (size_t i = 0; i < count; ++i) {
    append_comma(text);
    append_json_int(text, in.get<int64_t>());
  }
  return text + "]";
}

std::string scalar_list_text(Decoder& in) {
  std::string text = "[";
  for (Tag tag = in.get<Tag>(); tag != Tag::kEnd; tag = in.get<Tag>()) {
    append_comma(text);
    append_scalar(text, tag, in);
  }
  return text + "]";
}

}  // namespace

void append_inputs(std::string& out, const std::byte* encoded) {
  thread_local InputLists lists;  // for their memory
  lists.clear();
  Decoder in(encoded);
  for (Tag tag = in.get<Tag>(); tag != Tag::kEnd; tag = in.get<Tag>()) {
    switch (tag) {
      case Tag::kTensor:
        lists.tensor(in);
        break;
      case Tag::kTensorList:
        lists.tensor_list(in);
        break;
      case Tag::kLongList:
        lists.value("TensorList", "");
        break;
      case Tag::kUndefined:
      case Tag::kOther:
        lists.value("", "");
        break;
      case Tag::kIntList:
        lists.value("ScalarList", int_list_text(in));
        break;
      case Tag::kScalarList:
        lists.value("ScalarList", scalar_list_text(in));
        break;
      default: {
        std::string text;
        append_scalar(text, tag, in);
        lists.value("Scalar", text);
      }
    }
  }
  lists.append_to(out);
}

const std::string& InputTexts::text(std::span<const std::byte> encoded) {
  const std::string_view key(reinterpret_cast<const char*>(encoded.data()), encoded.size());
  if (key.size() > kLongest) {
    long_text_.clear();
    append_inputs(long_text_, encoded.data());
    return long_text_;
  }
  if (entries_.empty()) entries_.resize(kEntries);
  Entry& entry = entries_[std::hash<std::string_view>()(key) % kEntries];
  if (entry.encoded != key) {
    entry.encoded = key;
    entry.text.clear();
    append_inputs(entry.text, encoded.data());
  }
  return entry.text;
}

std::vector<OpInput> decode_inputs(const std::byte* encoded) {
  std::vector<OpInput> inputs;
  Decoder in(encoded);
  const auto skip_tensor = [&in](std::vector<int64_t>* sizes) {
    const TensorHead head = tensor_head(in);
    for (size_t i = 0; i < head.dims; ++i) {
      const int64_t size = in.dim(head.wide);
      if (sizes != nullptr) sizes->push_back(size);
    }
    for (size_t i = 0; head.strided && i < head.dims; ++i) in.dim(head.wide);
  };
  for (Tag tag = in.get<Tag>(); tag != Tag::kEnd; tag = in.get<Tag>()) {
    OpInput& input = inputs.emplace_back();
    input.tensor = tag == Tag::kTensor;
    std::string ignored;
    switch (tag) {
      case Tag::kTensor:
        skip_tensor(&input.values);
        break;
      case Tag::kTensorList:
        for (Tag inner = in.get<Tag>(); inner != Tag::kEnd; inner = in.get<Tag>()) {
          if (inner == Tag::kTensor) skip_tensor(nullptr);
        }
        break;
      case Tag::kInt:
        input.values.push_back(in.get<int64_t>());
        break;
      case Tag::kIntList: {
        const size_t count = in.get<uint8_t>();
        for (size_t i = 0; i < count; ++i) input.values.push_back(in.get<int64_t>());
        break;
      }
      case Tag::kScalarList:
        ignored = scalar_list_text(in);
        break;
      default:
        append_scalar(ignored, tag, in);
    }
  }
  return inputs;
}

}  // namespace omni::stream
