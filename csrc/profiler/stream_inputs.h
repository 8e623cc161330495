// Decodes the inputs of an op into the text of a trace, and into what its floating point operations are counted from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "profiler/op_flops.h"

namespace omni::stream {

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
std::vector<OpInput> decode_inputs(const std::byte* encoded);

}  // namespace omni::stream
