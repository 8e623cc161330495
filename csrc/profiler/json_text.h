// Appends JSON to a string without building a document: traces have millions of small events.
#pragma once

#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>

namespace omni {

// Appends a JSON string with its quotes. Control bytes, quotes and backslashes are escaped; all other text goes in as raw
// UTF-8, never as surrogate escapes, which Perfetto rejects together with the whole file. Each byte that is not
// UTF-8 becomes U+FFFD.
void append_json_string(std::string& out, std::string_view text);

inline void append_json_int(std::string& out, int64_t value) {
  char digits[24];
  out.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
}

inline void append_json_uint(std::string& out, uint64_t value) {
  char digits[24];
  out.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
}

// Appends nanoseconds as microseconds with exactly three decimals: no rounding, so slices nest as they did.
void append_json_us(std::string& out, int64_t nanoseconds);

// Appends [1, 2, 3]. Integers is any range of integers.
template <typename Integers>
void append_json_ints(std::string& out, const Integers& values) {
  out += '[';
  bool first = true;
  for (const auto value : values) {
    if (!first) out += ", ";
    first = false;
    append_json_int(out, static_cast<int64_t>(value));
  }
  out += ']';
}

// How many characters (code points) a terminal or Python counts in UTF-8 text.
size_t utf8_length(std::string_view text);
// The first count characters of UTF-8 text.
std::string_view utf8_prefix(std::string_view text, size_t count);

}  // namespace omni
