// Strict reader of safetensors headers: the bytes may come from anywhere.
#include "runtime/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>

#include "status.h"

namespace omni {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little,
              "the format is little endian and so is this reader");

// The reference implementation's limit; a real header needs about 150 bytes for each tensor.
constexpr uint64_t kMaxHeaderBytes = 100'000'000;

constexpr int kMaxHeaderDepth = 4;  // object, tensor, list, number

struct DTypeName {
  const char* name;
  at::ScalarType dtype;
};

constexpr DTypeName kDTypes[] = {
    {"F64", at::kDouble},
    {"F32", at::kFloat},
    {"F16", at::kHalf},
    {"BF16", at::kBFloat16},
    {"I64", at::kLong},
    {"I32", at::kInt},
    {"I16", at::kShort},
    {"I8", at::kChar},
    {"U64", at::kUInt64},
    {"U32", at::kUInt32},
    {"U16", at::kUInt16},
    {"U8", at::kByte},
    {"BOOL", at::kBool},
    {"F8_E4M3", at::kFloat8_e4m3fn},
    {"F8_E5M2", at::kFloat8_e5m2},
};

[[noreturn]] void fail(const std::string& where, const std::string& message) {
  throw Error(OMNI_INVALID_ARGUMENT, where + ": " + message);
}

std::string dump(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

// The JSON text of the header, without the padding behind it.
std::pair<const char*, size_t> header_text(const uint8_t* data, size_t size, const std::string& file) {
  if (size < sizeof(uint64_t)) {
    fail(file, "truncated: " + std::to_string(size) + " bytes, a safetensors file has at least 8");
  }
  uint64_t length = 0;
  std::memcpy(&length, data, sizeof length);
  if (length > kMaxHeaderBytes) {
    fail(file, "not a safetensors file: a header of " + std::to_string(length) + " bytes, at most " +
                   std::to_string(kMaxHeaderBytes) + " are allowed");
  }
  if (length > size - sizeof length) {
    fail(file, "truncated: the header has " + std::to_string(length) + " bytes, " +
                   std::to_string(size - sizeof length) + " are there");
  }
  return {reinterpret_cast<const char*>(data + sizeof length), length};
}

// The header as an object. The parser keeps the last of several equal keys, which would hide a tensor: refused. So is
// nesting beyond the format's, which would overflow the stack of whoever walks it.
json parse_header(const uint8_t* data, size_t size, const std::string& file) {
  const auto [text, length] = header_text(data, size, file);
  std::unordered_set<std::string> names;
  const auto check_structure = [&](int depth, json::parse_event_t event, json& parsed) {
    if (depth > kMaxHeaderDepth) fail(file, "the header is nested too deeply");
    if (event == json::parse_event_t::key && depth == 1 && !names.insert(parsed.get<std::string>()).second) {
      fail(file, "tensor \"" + parsed.get<std::string>() + "\": appears twice in the header");
    }
    return true;
  };
  json header;
  try {
    header = json::parse(text, text + length, check_structure);
  } catch (const json::exception& error) {
    fail(file, std::string("the header is not JSON: ") + error.what());
  }
  if (!header.is_object()) fail(file, "the header is not a JSON object");
  return header;
}

at::ScalarType parse_dtype(const json& entry, const std::string& where) {
  const auto it = entry.find("dtype");
  if (it == entry.end() || !it->is_string()) fail(where, "\"dtype\" is missing or not a string");
  const auto& name = it->get_ref<const std::string&>();
  for (const DTypeName& known : kDTypes) {
    if (name == known.name) return known.dtype;
  }
  std::string list;
  for (const DTypeName& known : kDTypes) list += (list.empty() ? "" : ", ") + std::string(known.name);
  fail(where, "unknown dtype \"" + name + "\", expected one of: " + list);
}

// A list of integers that are neither negative nor above what int64 holds.
std::vector<int64_t> parse_sizes(const json& entry, const char* key, const std::string& where) {
  const auto it = entry.find(key);
  if (it == entry.end() || !it->is_array())
    fail(where, std::string("\"") + key + "\" is missing or not a list");
  std::vector<int64_t> sizes;
  for (const json& value : *it) {
    if (!value.is_number_unsigned() ||
        value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      fail(where, std::string("\"") + key + "\": expected integers >= 0 of 63 bits, found " + dump(value));
    }
    sizes.push_back(static_cast<int64_t>(value.get<uint64_t>()));
  }
  return sizes;
}

int64_t byte_count(const std::vector<int64_t>& shape, at::ScalarType dtype, const std::string& where) {
  auto bytes = static_cast<int64_t>(c10::elementSize(dtype));
  for (const int64_t dim : shape) {
    if (__builtin_mul_overflow(bytes, dim, &bytes)) fail(where, "shape " + shape_text(shape) + " overflows");
  }
  return bytes;
}

TensorInfo parse_tensor(const std::string& name, const json& entry, const std::string& file,
                        const uint8_t* section, int64_t section_size) {
  const std::string where = file + ": tensor \"" + name + "\"";
  if (!entry.is_object()) fail(where, "expected an object, found " + dump(entry).substr(0, 60));
  TensorInfo info{name, parse_dtype(entry, where), parse_sizes(entry, "shape", where), file, nullptr, 0};
  info.bytes = byte_count(info.shape, info.dtype, where);
  const std::vector<int64_t> offsets = parse_sizes(entry, "data_offsets", where);
  if (offsets.size() != 2 || offsets[0] > offsets[1]) {
    fail(where, "\"data_offsets\": expected [begin, end], found " + shape_text(offsets));
  }
  if (offsets[1] > section_size) {
    fail(where, "truncated: its data ends at " + std::to_string(offsets[1]) + ", the file's at " +
                    std::to_string(section_size));
  }
  if (offsets[1] - offsets[0] != info.bytes) {
    fail(where, std::string(safetensors_dtype_name(info.dtype)) + " " + shape_text(info.shape) + " takes " +
                    std::to_string(info.bytes) + " bytes, data_offsets " + shape_text(offsets) + " hold " +
                    std::to_string(offsets[1] - offsets[0]));
  }
  info.data = section + offsets[0];
  return info;
}

// The format wants the tensors to fill the data section exactly.
void check_layout(std::vector<TensorInfo>& tensors, const std::string& file, const uint8_t* section,
                  int64_t section_size) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::pair(a.data, a.bytes) < std::pair(b.data, b.bytes);
  });
  int64_t end = 0;
  const TensorInfo* before = nullptr;
  for (const TensorInfo& info : tensors) {
    const int64_t begin = info.data - section;
    const std::string where = file + ": tensor \"" + info.name + "\"";
    if (begin < end) {
      fail(where, "its data begins at " + std::to_string(begin) + " and overlaps that of \"" + before->name +
                      "\", which ends at " + std::to_string(end));
    }
    if (begin > end) {
      fail(where, "its data begins at " + std::to_string(begin) + " but the one before it ends at " +
                      std::to_string(end));
    }
    end = begin + info.bytes;
    before = &info;
  }
  if (end != section_size) {
    fail(file, std::to_string(section_size - end) + " bytes after the last tensor belong to none");
  }
}

}  // namespace

std::vector<TensorInfo> read_safetensors_header(const uint8_t* data, size_t size, const std::string& file) {
  const json header = parse_header(data, size, file);
  const size_t section_offset = sizeof(uint64_t) + header_text(data, size, file).second;
  const uint8_t* section = data + section_offset;
  const auto section_size = static_cast<int64_t>(size - section_offset);
  std::vector<TensorInfo> tensors;
  tensors.reserve(header.size());
  for (const auto& [name, entry] : header.items()) {
    if (name != "__metadata__") tensors.push_back(parse_tensor(name, entry, file, section, section_size));
  }
  check_layout(tensors, file, section, section_size);
  return tensors;
}

const char* safetensors_dtype_name(at::ScalarType dtype) {
  for (const DTypeName& known : kDTypes) {
    if (known.dtype == dtype) return known.name;
  }
  return "?";
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + "]";
}

}  // namespace omni
