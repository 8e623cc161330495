// From torch's event tree and Kineto's activities to our writers' events.
//
// Ops, annotations and allocations are read from torch's tree, where they are typed; what happened on devices, from
// Kineto's activities, whose arguments exist as JSON text only.
#include "profiler/torch_events.h"

#include <ITraceActivity.h>
#include <torch/csrc/autograd/profiler_kineto.h>
#include <torch/csrc/profiler/collection.h>
#include <torch/csrc/profiler/util.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "profiler/call_sites.h"
#include "profiler/caller_sites.h"
#include "profiler/json_text.h"
#include "profiler/op_flops.h"

namespace omni {
namespace {

namespace impl = torch::profiler::impl;
using impl::EventType;
using impl::ExtraFields;
using libkineto::ActivityType;
using libkineto::ITraceActivity;
using TorchOp = ExtraFields<EventType::TorchOp>;
using Allocation = ExtraFields<EventType::Allocation>;

void append_strings(std::string& out, const std::vector<std::string>& values) {
  out += '[';
  for (size_t i = 0; i < values.size(); ++i) {
    if (i > 0) out += ", ";
    append_json_string(out, values[i]);
  }
  out += ']';
}

// Shapes or strides: one list per tensor, a list of lists per list of tensors.
void append_shapes(std::string& out, const std::vector<impl::shape>& shapes) {
  out += '[';
  for (size_t i = 0; i < shapes.size(); ++i) {
    if (i > 0) out += ", ";
    if (const auto* dims = std::get_if<std::vector<int64_t>>(&shapes[i])) {
      append_json_ints(out, *dims);
      continue;
    }
    const auto& list = std::get<std::vector<std::vector<int64_t>>>(shapes[i]);
    out += '[';
    for (size_t j = 0; j < list.size(); ++j) {
      if (j > 0) out += ", ";
      append_json_ints(out, list[j]);
    }
    out += ']';
  }
  out += ']';
}

// torch quotes nothing and keeps a string's own quotes where it has any: the text inside is what we want.
std::string inputs_text(const TorchOp& op) {
  const impl::OpArgData args = impl::parseArgData(op.inputs_);
  std::string text;
  if (!args.hasData) return text;
  text += "\"Input Dims\":";
  append_shapes(text, impl::variantShapesTruncated(args.shapes));
  text += ",\"Input type\":";
  append_strings(text, args.dtypes);
  text += ",\"Input Strides\":";
  append_shapes(text, impl::variantShapesTruncated(args.strides));
  text += ",\"Concrete Inputs\":";
  append_strings(text, impl::concreteInputsToStrList(args.concreteInputs));
  return text;
}

// What operations are counted from.
std::vector<OpInput> count_inputs(const TorchOp& op) {
  const auto& [shapes, concrete] = op.inputs_;
  std::vector<OpInput> inputs(shapes.size());
  for (size_t i = 0; i < shapes.size(); ++i) {
    if (const auto* tensor = std::get_if<impl::TensorMetadata>(&shapes[i])) {
      inputs[i] = {true, tensor->sizes_};
      continue;
    }
    // A single number is among the shapes, a list among the values.
    for (const std::vector<impl::op_input_t>* part : {&shapes, &concrete}) {
      const auto* value = i < part->size() ? std::get_if<c10::IValue>(&(*part)[i]) : nullptr;
      if (value == nullptr) continue;
      if (value->isInt()) inputs[i].values = {value->toInt()};
      if (value->isIntList()) inputs[i].values = value->toIntVector();
    }
  }
  return inputs;
}

uint64_t flops_of(const TorchOp& op) {
  if (torch_counts_flops(op.name_)) return impl::computeFlops(op.name_, op.extra_args_);
  return counts_flops(op.name_) ? count_flops(op.name_, count_inputs(op)) : 0;
}

// Torch converts its times afterwards: they may be off by a few microseconds.
constexpr int64_t kClockSlackNs = 50000;

// Whether an activity is also in torch's tree.
bool is_in_tree(ActivityType type) {
  return type == ActivityType::CPU_OP || type == ActivityType::USER_ANNOTATION ||
         type == ActivityType::CPU_INSTANT_EVENT || type == ActivityType::PYTHON_FUNCTION;
}

bool is_on_device(ActivityType type) {
  switch (type) {
    case ActivityType::GPU_USER_ANNOTATION:
    case ActivityType::GPU_MEMCPY:
    case ActivityType::GPU_MEMSET:
    case ActivityType::CONCURRENT_KERNEL:
    case ActivityType::CUDA_SYNC:
    case ActivityType::CUDA_EVENT:
      return true;
    default:
      return false;
  }
}

// Walks over host events in the order of time, keeping per thread what is open.
class HostWalk {
 public:
  HostWalk(const TorchEventsSink& sink,
           const std::unordered_map<uint64_t, std::vector<const ITraceActivity*>>& launched)
      : config_(sink.config),
        until_ns_(sink.until_ns),
        trace_(sink.trace),
        table_(sink.table),
        launched_(launched) {}

  void op(const impl::Result& result, const TorchOp& op) {
    const int64_t thread = result.kineto_info_.resource;
    const int64_t end_ns = std::max(std::min(op.end_time_ns_, until_ns_), result.start_time_ns_);
    const bool annotation = op.scope_ == at::RecordScope::USER_SCOPE;
    const bool async = op.is_async_ || (op.end_tid_ != 0 && op.end_tid_ != result.start_tid_);
    std::vector<Open>& stack = open_[thread];
    close(thread, stack, result.start_time_ns_, end_ns);
    if (trace_ != nullptr) write(result, op, thread, end_ns, annotation, stack);
    if (is_utility_op(op.name_) || (annotation && op.name_ == kWaitScope)) return;
    if (async) {
      table_.async_op(op.name_, end_ns - result.start_time_ns_);
      return;
    }
    table_.enter(thread, op.name_, annotation, result.start_time_ns_);
    launched_by(op, thread);
    const uint64_t flops = config_.with_flops ? flops_of(op) : 0;
    const bool module = annotation && !op.name_.starts_with("ProfilerStep#");
    const bool outermost = stack.empty();
    Open& open = stack.emplace_back(Open{end_ns, flops, nullptr, {}});
    if (!outermost) {
      open.module = stack[stack.size() - 2].module;
      open.sites = stack[stack.size() - 2].sites;
    }
    if (module) open.module = &op.name_;
    if (annotation && config_.with_stack) open.sites = sites_of(op.name_, open.sites);
  }

  void allocation(const impl::Result& result, const Allocation& allocation) {
    const int64_t thread = result.kineto_info_.resource;
    // An op's last instant is still the op's, so what ends in this very nanosecond stays open.
    close(thread, open_[thread], result.start_time_ns_ - 1, result.start_time_ns_ - 1);
    if (trace_ != nullptr) {
      trace_->memory({.time_ns = result.start_time_ns_,
                      .thread = thread,
                      .address = reinterpret_cast<uint64_t>(allocation.ptr_),
                      .bytes = allocation.alloc_size_,
                      .total_allocated = allocation.total_allocated_,
                      .total_reserved = allocation.total_reserved_,
                      .device_type = static_cast<int>(allocation.device_type_),
                      .device_index = allocation.device_index_});
    }
    table_.memory(thread, allocation.alloc_size_, allocation.device_type_ != c10::DeviceType::CPU);
  }

  // Ends what is still open.
  void finish() {
    for (auto& [thread, stack] : open_) {
      for (; !stack.empty(); stack.pop_back()) table_.exit(thread, stack.back().end_ns, stack.back().flops);
    }
  }

 private:
  struct Open {
    int64_t end_ns;
    uint64_t flops;
    const std::string* module;  // the innermost module at this depth; may be null
    std::string sites;          // the call sites of the modules at this depth
  };

  static std::string sites_of(const std::string& name, const std::string& outer) {
    std::string sites = call_site(name.starts_with("ProfilerStep#") ? kStepSite : name);
    if (!sites.empty() && !outer.empty()) sites += ';';
    return sites + outer;
  }

  // Ends what cannot contain an event from start_ns to end_ns.
  void close(int64_t thread, std::vector<Open>& stack, int64_t start_ns, int64_t end_ns) {
    while (!stack.empty() && (stack.back().end_ns <= start_ns || stack.back().end_ns < end_ns)) {
      table_.exit(thread, stack.back().end_ns, stack.back().flops);
      stack.pop_back();
    }
  }

  void write(const impl::Result& result, const TorchOp& op, int64_t thread, int64_t end_ns, bool annotation,
             const std::vector<Open>& stack) {
    const std::string inputs = inputs_text(op);
    HostEvent event;
    event.name = op.name_;
    event.annotation = annotation;
    event.start_ns = result.start_time_ns_;
    event.end_ns = end_ns;
    event.thread = thread;
    event.lane = lanes_.place(0, thread, event.start_ns, event.end_ns);
    event.external_id = op.correlation_id_;
    event.function_id = op.record_function_id_;
    event.sequence = op.sequence_number_;
    event.forward_thread = op.forward_tid_;
    if (config_.with_stack && !stack.empty() && stack.back().module != nullptr)
      event.module = *stack.back().module;
    std::string sites;
    if (config_.with_stack && annotation) {
      sites = sites_of(op.name_, stack.empty() ? std::string() : stack.back().sites);
    }
    event.stack = sites;
    event.inputs = inputs;
    trace_->op(event);
  }

  void launched_by(const TorchOp& op, int64_t thread) {
    const auto it = launched_.find(op.correlation_id_);
    if (it == launched_.end()) return;
    for (const ITraceActivity* work : it->second) {
      table_.device_work(thread, work->name(), work->type() == ActivityType::GPU_USER_ANNOTATION,
                         work->duration());
    }
  }

  const RecorderConfig& config_;
  const int64_t until_ns_;
  TraceWriter* trace_;
  TableBuilder& table_;
  const std::unordered_map<uint64_t, std::vector<const ITraceActivity*>>& launched_;
  std::unordered_map<int64_t, std::vector<Open>> open_;
  Lanes lanes_;
};

void collect(const std::vector<std::shared_ptr<impl::Result>>& results,
             std::vector<const impl::Result*>& out) {
  std::vector<const impl::Result*> pending;  // a stack of its own: trees can be deep
  for (const auto& root : results) {
    pending.push_back(root.get());
    while (!pending.empty()) {
      const impl::Result* result = pending.back();
      pending.pop_back();
      if (!result->hidden_) out.push_back(result);
      for (const auto& child : result->children_) pending.push_back(child.get());
    }
  }
}

// Whether one more event goes into the files.
bool admit(const TorchEventsSink& sink) {
  if (sink.trace != nullptr && sink.config.max_trace_bytes > 0 &&
      sink.trace->expected_bytes() >= sink.config.max_trace_bytes)
    sink.budget.fill(Full::kTraceBytes);
  return sink.budget.admit();
}

// Writes what Kineto collected beyond torch's tree and returns how much that was.
int64_t write_activities(const std::vector<const ITraceActivity*>& activities, const TorchEventsSink& sink) {
  TraceWriter& trace = *sink.trace;
  std::vector<const ITraceActivity*> order;
  for (const ITraceActivity* activity : activities) {
    if (!is_in_tree(activity->type()) && activity->timestamp() >= sink.from_ns) order.push_back(activity);
  }
  std::stable_sort(order.begin(), order.end(), [](const ITraceActivity* a, const ITraceActivity* b) {
    return a->timestamp() != b->timestamp() ? a->timestamp() < b->timestamp() : a->duration() > b->duration();
  });
  Lanes lanes;
  int64_t written = 0;
  for (const ITraceActivity* activity : order) {
    if (!admit(sink)) continue;
    ++written;
    const int64_t start_ns = activity->timestamp();
    const int64_t end_ns = start_ns + std::max<int64_t>(activity->duration(), 0);
    std::string args = activity->metadataJson();
    if (!nlohmann::json::accept("{" + args + "}")) {
      std::string quoted = "\"args\":";
      append_json_string(quoted, args);
      args = quoted;
    }
    const std::string name = activity->name();
    ActivityEvent event;
    event.category = libkineto::toString(activity->type());
    event.name = name;
    event.start_ns = start_ns;
    event.end_ns = end_ns;
    event.process = activity->deviceId();
    event.thread = activity->resourceId();
    event.device = is_on_device(activity->type());
    event.args = args;
    event.lane = lanes.place(event.process, event.thread, start_ns, end_ns);
    trace.activity(event);
    if (activity->flowId() > 0) {
      trace.flow("ac2g", static_cast<uint64_t>(activity->flowId()), activity->flowStart(), start_ns,
                 event.process, event.thread);
    }
  }
  return written;
}

}  // namespace

int64_t write_torch_events(torch::autograd::profiler::ProfilerResult& result, const TorchEventsSink& sink) {
  std::unordered_map<uint64_t, std::vector<const ITraceActivity*>> launched;
  const std::vector<const ITraceActivity*>* activities =
      sink.config.cuda ? result.traceActivities() : nullptr;
  if (activities != nullptr) {
    for (const ITraceActivity* activity : *activities) {
      if (!is_on_device(activity->type())) continue;
      const ITraceActivity* op = activity->linkedActivity();
      launched[op == nullptr ? 0 : static_cast<uint64_t>(op->correlationId())].push_back(activity);
    }
  }

  std::vector<const impl::Result*> order;
  collect(result.event_tree(), order);
  std::sort(order.begin(), order.end(), [](const impl::Result* a, const impl::Result* b) {
    if (a->start_time_ns_ != b->start_time_ns_) return a->start_time_ns_ < b->start_time_ns_;
    const int64_t a_end = a->endTimeNS();
    const int64_t b_end = b->endTimeNS();
    return a_end != b_end ? a_end > b_end : a->correlationID() < b->correlationID();
  });

  HostWalk walk(sink, launched);
  int64_t events = 0;
  for (const impl::Result* event : order) {
    const bool written = std::holds_alternative<TorchOp>(event->extra_fields_) ||
                         std::holds_alternative<Allocation>(event->extra_fields_);
    const int64_t start_ns = event->start_time_ns_;
    if (!written || start_ns < sink.from_ns || start_ns > sink.until_ns + kClockSlackNs || !admit(sink))
      continue;
    ++events;
    if (const auto* op = std::get_if<TorchOp>(&event->extra_fields_)) {
      walk.op(*event, *op);
    } else if (const auto* allocation = std::get_if<Allocation>(&event->extra_fields_)) {
      walk.allocation(*event, *allocation);
    }
  }
  walk.finish();
  for (const ITraceActivity* work : launched[0])
    sink.table.device_work(0, work->name(), false, work->duration());
  if (activities != nullptr && sink.trace != nullptr) events += write_activities(*activities, sink);
  return events;
}

}  // namespace omni
