// Floating point operations of an op, estimated from its inputs. All recorders count by this table.
//
// What counts is the multiplications and additions of matrix products, convolutions and attention, of torch's ops and of
// our own, and torch's own counts of add and mul. Where one counted op calls another, only one of them is in the table, so
// that a sum over a table's rows is that of the work. docs/profiling.md has the formulas for users.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace omni {

// One input of an op.
struct OpInput {
  bool tensor = false;
  std::vector<int64_t> values;  // sizes of a tensor; an integer, or those of a list; else empty
};

// Whether the op of that name is in the table.
bool counts_flops(std::string_view name);
// Whether torch's profiler counts it too, by the same formula.
bool torch_counts_flops(std::string_view name);
// The estimate, 0 if the inputs are not what it needs.
uint64_t count_flops(std::string_view name, const std::vector<OpInput>& inputs);

}  // namespace omni
