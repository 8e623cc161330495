// The rows of the operator table.
#include "profiler/table.h"

#include <algorithm>
#include <cstddef>

namespace omni {
namespace {

constexpr std::string_view kStepPrefix = "ProfilerStep#";
constexpr std::string_view kStepRow = "ProfilerStep*";

void add_device_work(TableRow& row, int64_t duration_ns) {
  ++row.calls;
  row.device_total_ns += duration_ns;
  row.device_self_ns += duration_ns;
}

}  // namespace

bool is_utility_op(std::string_view name) {
  return name.starts_with("profiler::_record_function") || name == "aten::is_leaf" ||
         name == "aten::output_nr" || name == "aten::_version";
}

void TableBuilder::enter(int64_t thread, size_t row, int64_t start_ns) {
  std::vector<Frame>& stack = stacks_[thread];
  Frame& frame = stack.emplace_back();
  frame.call.row = row;
  frame.call.start_ns = start_ns;
}

void TableBuilder::exit(int64_t thread, int64_t end_ns, uint64_t flops, size_t above) {
  std::vector<Frame>& stack = stacks_[thread];
  if (stack.size() <= above) return;
  const size_t at = stack.size() - 1 - above;
  const Frame frame = stack[at];
  stack.erase(stack.begin() + static_cast<ptrdiff_t>(at));
  Call call = frame.call;
  call.total_ns = end_ns - call.start_ns;
  call.flops = flops;
  if (call.has_only) {
    if (call.children == 1 && frame.only.row == call.row) {
      // The child is this call over again: its children are this call's, its kernels too, and it does not count.
      call.children_ns = frame.only.children_ns;
      call.device_ns = frame.only.device_ns;
      call.device_children_ns = frame.only.device_children_ns;
      call.children_bytes = frame.only.children_bytes;
      call.device_children_bytes = frame.only.device_children_bytes;
    } else {
      add(frame.only);
    }
    call.has_only = false;
  }
  if (at == 0) {
    add(call);
    return;
  }
  Frame& caller = stack[at - 1];
  ++caller.call.children;
  caller.call.children_ns += call.total_ns;
  caller.call.bytes += call.bytes;
  caller.call.children_bytes += call.bytes;
  caller.call.device_bytes += call.device_bytes;
  caller.call.device_children_bytes += call.device_bytes;
  caller.call.device_children_ns += call.device_ns + call.device_children_ns;
  if (caller.call.children == 1) {
    caller.only = call;
    caller.call.has_only = true;
    return;
  }
  if (caller.call.has_only) {
    add(caller.only);
    caller.call.has_only = false;
  }
  add(call);
}

void TableBuilder::rename(int64_t thread, size_t row, size_t above) {
  std::vector<Frame>& stack = stacks_[thread];
  if (stack.size() > above) stack[stack.size() - 1 - above].call.row = row;
}

void TableBuilder::memory(int64_t thread, int64_t bytes, bool device) {
  std::vector<Frame>& stack = stacks_[thread];
  if (!stack.empty()) {
    Call& call = stack.back().call;
    (device ? call.device_bytes : call.bytes) += bytes;
    return;
  }
  TableRow& top = rows_[row("[memory]", false, false)];
  ++top.calls;
  (device ? top.device_total_bytes : top.total_bytes) += bytes;
  (device ? top.device_self_bytes : top.self_bytes) += bytes;
}

void TableBuilder::async_op(std::string_view name, int64_t duration_ns) {
  TableRow& target = rows_[row(name, false, false)];
  ++target.calls;
  target.total_ns += duration_ns;
}

void TableBuilder::device_work(int64_t thread, std::string_view name, bool annotation, int64_t duration_ns) {
  add_device_work(rows_[row(name, annotation, true)], duration_ns);
  std::vector<Frame>& stack = stacks_[thread];
  if (!stack.empty() && !annotation) stack.back().call.device_ns += duration_ns;
}

void TableBuilder::device_work(std::string_view name, int64_t duration_ns) {
  add_device_work(rows_[row(name, false, true)], duration_ns);
}

void TableBuilder::launched(const std::vector<size_t>& callers, int64_t duration_ns) {
  for (size_t i = 0; i < callers.size(); ++i) {
    TableRow& caller = rows_[callers[i]];
    if (i == 0) caller.device_self_ns += duration_ns;
    // An op that calls itself has the time once.
    if (std::find(callers.begin(), callers.begin() + static_cast<ptrdiff_t>(i), callers[i]) ==
        callers.begin() + static_cast<ptrdiff_t>(i))
      caller.device_total_ns += duration_ns;
  }
}

size_t TableBuilder::row(std::string_view name, bool annotation, bool device) {
  if (name.substr(0, kStepPrefix.size()) == kStepPrefix) name = kStepRow;
  key_.assign(1, static_cast<char>('0' + annotation + 2 * device));
  key_ += name;
  const auto [it, added] = index_.try_emplace(key_, rows_.size());
  if (added) {
    TableRow& fresh = rows_.emplace_back();
    fresh.name = name;
    fresh.annotation = annotation;
    fresh.device = device;
  }
  return it->second;
}

void TableBuilder::add(const Call& call) {
  TableRow& target = rows_[call.row];
  ++target.calls;
  target.total_ns += call.total_ns;
  target.self_ns += call.total_ns - call.children_ns;
  target.device_total_ns += call.device_ns + call.device_children_ns;
  target.device_self_ns += call.device_ns;
  target.total_bytes += call.bytes;
  target.self_bytes += call.bytes - call.children_bytes;
  target.device_total_bytes += call.device_bytes;
  target.device_self_bytes += call.device_bytes - call.device_children_bytes;
  target.flops += call.flops;
}

}  // namespace omni
