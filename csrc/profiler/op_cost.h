// What observing an op costs, measured on an op that does next to nothing.
#pragma once

namespace omni {

// How long that op takes with whatever callbacks are set now: the median over blocks of calls, because what was
// interrupted is far off. Each block calls it kOpCostCalls times. [torch thread]
constexpr int kOpCostCalls = 40;
double trivial_op_ns(int blocks);

// What torch's machinery adds to an op when there are callbacks that do nothing, with or without inputs. Measured on the
// first call of a process, which takes about half a millisecond. [torch thread], while nothing records.
double dispatch_ns(bool inputs);

}  // namespace omni
