// Decodes the inputs of an op into the text of a trace and into its count of floating point operations.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "profiler/stream_record.h"

namespace omni::stream {

// One decoded input, as far as flops need it.
struct Input {
  Tag tag = Tag::kOther;
  std::vector<int64_t> values;  // sizes of a tensor, integers of a list, one integer
};

// Appends "Input Dims": [...], "Input type": [...], "Input Strides": [...], "Concrete Inputs": [...] as torch's profiler
// writes them, from inputs as ThreadLog wrote them.
void append_inputs(std::string& out, const std::byte* encoded);

// The same, remembered: a model calls the same ops with the same shapes again and again, and formatting them is half of
// what writing a trace takes.
class InputTexts {
 public:
  // The text of encoded inputs, until the next call. Bytes behind their end, up to that of the record, must be zero.
  const std::string& text(std::span<const std::byte> encoded);

 private:
  static constexpr size_t kEntries = 2048;
  static constexpr size_t kLongest = 4096;  // longer ones are not remembered

  struct Entry {
    std::string encoded;
    std::string text;
  };
  std::vector<Entry> entries_;  // by hash; the last of those that have a place in common
  std::string long_text_;
};

// The inputs in a form to compute with.
std::vector<Input> decode_inputs(const std::byte* encoded);

// Whether torch estimates the floating point operations of the op of that name.
bool has_flops(std::string_view name);
// The estimate, 0 if the inputs are not what it needs.
uint64_t estimate_flops(std::string_view name, const std::vector<Input>& inputs);

}  // namespace omni::stream
