// Decodes the inputs of an op into the text of a trace and into its count of floating point operations.
#pragma once

#include <cstddef>
#include <cstdint>
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

// The inputs in a form to compute with.
std::vector<Input> decode_inputs(const std::byte* encoded);

// Whether torch estimates the floating point operations of the op of that name.
bool has_flops(std::string_view name);
// The estimate, 0 if the inputs are not what it needs.
uint64_t estimate_flops(std::string_view name, const std::vector<Input>& inputs);

}  // namespace omni::stream
