// What the C functions share: argument checks and the passing of structs of different ages.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "handles.h"
#include "omni.h"
#include "runtime/config.h"
#include "status.h"

namespace omni {

inline void require(bool good, const char* message) {
  if (!good) throw Error(OMNI_INVALID_ARGUMENT, message);
}

// The JSON document that a caller passed as pointer and size.
inline nlohmann::json parse_argument(const char* text, size_t size, const char* name) {
  require(text != nullptr, "a JSON argument is NULL");
  return parse_json(std::string_view(text, size), name);
}

// Gives bytes to the caller of a C function.
inline void set_buffer(omni_buffer** out, std::string bytes) {
  auto buffer = std::make_unique<omni_buffer>();
  buffer->bytes = std::move(bytes);
  *out = buffer.release();
}

// JSON for the caller. What is not UTF-8 (a path, say) is replaced, not refused.
inline void set_json(omni_buffer** out, const nlohmann::json& document) {
  set_buffer(out, document.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

// The caller's struct in this library's form: fields that an older caller does not know are zero.
template <typename Struct>
Struct read_struct(const void* from, const char* name) {
  uint32_t size = 0;
  std::memcpy(&size, from, sizeof size);
  if (size < sizeof size) throw Error(OMNI_INVALID_ARGUMENT, std::string(name) + ".struct_size is not set");
  Struct copy = {};
  std::memcpy(&copy, from, std::min<size_t>(size, sizeof copy));
  return copy;
}

// Fills the part of the caller's struct that both sides know; its struct_size stays.
template <typename Struct>
void write_struct(Struct value, Struct* to, const char* name) {
  const uint32_t size = to->struct_size;
  if (size < sizeof size) throw Error(OMNI_INVALID_ARGUMENT, std::string(name) + ".struct_size is not set");
  value.struct_size = size;
  std::memcpy(static_cast<void*>(to), &value, std::min<size_t>(size, sizeof value));
}

}  // namespace omni
