// Records back into events.
#include "profiler/stream_reader.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "profiler/call_sites.h"
#include "profiler/caller_sites.h"
#include "profiler/op_flops.h"
#include "profiler/stream_activities.h"
#include "profiler/stream_inputs.h"

namespace omni::stream {
namespace {

template <typename T>
T take(const std::byte*& at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  at += sizeof value;
  return value;
}

}  // namespace

Reader::Reader(const RecorderConfig& config, Session& session, TraceWriter* trace, TableBuilder& table)
    : config_(config),
      session_(session),
      trace_(trace),
      table_(table),
      gpu_(trace, [this](uint64_t counter) { return clock_.unix_ns(counter); }),
      annotations_([this](std::string_view name, uint64_t external_id, const cuda::StreamSpan& span) {
        gpu_.annotation(name, external_id, span);
        table_.device_work(0, name, /*annotation=*/true, span.end_ns - span.start_ns);
      }) {
  gpu_.on_device_work = [this](const cuda::ActivityWriter::DeviceWork& work) { device_work(work); };
}

void Reader::begin_window(int64_t from_ns) { window_ns_ = from_ns; }

void Reader::read(const Filled& filled) {
  clock_.follow();
  Thread& thread = threads_[filled.log];
  thread.thread = filled.thread;
  if (trace_ != nullptr) trace_->thread_name(filled.thread, filled.name.data());
  const std::byte* at = filled.chunk->bytes.data() + filled.begin;
  const std::byte* const end =
      filled.chunk->bytes.data() + filled.chunk->used.load(std::memory_order_acquire);
  Header header{};
  while (at < end) {
    std::memcpy(&header, at, sizeof header);
    const std::byte* payload = at + sizeof header;
    at += size_t{header.words} * 8;
    if (header.kind >= Kind::kActivity) {
      gpu_record(header, payload);
      continue;
    }
    if (!thread.in_window && clock_.unix_ns(header.time) >= window_ns_) enter_window(thread, filled.log);
    switch (header.kind) {
      case Kind::kOpBegin:
      case Kind::kScopeBegin:
      case Kind::kStepBegin:
        begin(thread, filled.log, header, payload);
        break;
      case Kind::kOpEnd:
        end_op(thread, filled.log, clock_.unix_ns(header.time));
        break;
      case Kind::kStepEnd:
        end_step(thread, filled.log, clock_.unix_ns(header.time));
        break;
      case Kind::kScopeEnd:
        end_scope(header.id, take<uint64_t>(payload), clock_.unix_ns(header.time), header.id == filled.log);
        break;
      case Kind::kMemory:
        memory(thread, filled.log, header, payload);
        break;
      case Kind::kActivity:
      case Kind::kActivitiesEnd:
      case Kind::kLost:
        break;
    }
  }
  if (header.words > 0) thread.last_counter = header.time;
}

void Reader::finish(uint64_t end_counter) {
  for (auto& [log, thread] : threads_) {
    // Another thread may have recorded a little longer than that.
    const int64_t end_ns = clock_.unix_ns(std::max(end_counter, thread.last_counter));
    while (thread.depth > 0) {
      const size_t last = thread.depth - 1;
      if (thread.frames[last].kind == Kind::kStepBegin) {
        cut_step(thread, log, last, end_ns);
      } else {
        close(thread, log, last, end_ns, false);
      }
    }
  }
  if (window_ns_ == INT64_MIN) unmatched_ += static_cast<int64_t>(early_ends_.size());
  gpu_.flush();
  annotations_.finish();
  gpu_.finish();
}

std::map<std::string, int64_t> Reader::gpu_dropped() const {
  std::map<std::string, int64_t> all = gpu_lost_;
  for (const auto& [reason, count] : gpu_.dropped()) all[reason] += count;
  return all;
}

void Reader::enter_window(Thread& thread, uint32_t log) {
  thread.in_window = true;
  for (size_t i = 0; i < thread.depth; ++i) {
    Frame& frame = thread.frames[i];
    frame.in_table = !frame.utility;
    if (frame.in_table) table_.enter(log, row_of(frame), frame.start_ns);
  }
}

bool Reader::refuse() {
  if (!trace_full_) {
    if (config_.max_trace_bytes == 0 || trace_ == nullptr ||
        trace_->expected_bytes() < config_.max_trace_bytes)
      return false;
    trace_full_ = true;
    session_.budget().fill(Full::kTraceBytes);
  }
  session_.budget().withdraw();
  return true;
}

void Reader::begin(Thread& thread, uint32_t log, const Header& header, const std::byte* payload) {
  const std::byte* const end = payload - sizeof header + size_t{header.words} * 8;
  if (thread.depth == thread.frames.size()) thread.frames.emplace_back();
  Frame& frame = thread.frames[thread.depth];
  frame.kind = header.kind;
  frame.cut = false;
  frame.annotation = header.kind == Kind::kStepBegin || (header.flags & kAnnotation) != 0;
  frame.refused = thread.in_window && refuse();
  frame.start_ns = clock_.unix_ns(header.time);
  frame.serial = header.kind == Kind::kScopeBegin ? take<uint64_t>(payload) : 0;
  frame.number = header.kind == Kind::kStepBegin ? take<int64_t>(payload) : 0;
  const bool told = (header.flags & kHasExternal) != 0;
  frame.external_id = told ? take<uint64_t>(payload) : next_id_++;
  frame.name = header.id;
  frame.sequence = -1;
  frame.forward_thread = 0;
  if ((header.flags & kHasSequence) != 0) {
    const auto sequence = take<Sequence>(payload);
    frame.sequence = sequence.number;
    frame.forward_thread = sequence.forward_thread;
  }
  frame.flops = 0;
  frame.inputs.clear();
  if ((header.flags & kHasInputs) != 0) {
    if (trace_ != nullptr) frame.inputs = inputs_.text({payload, end});
    const Name& op = name(frame.name);
    if (config_.with_flops && op.has_flops) frame.flops = count_flops(op.text, decode_inputs(payload));
  }
  frame.module = kNoModule;
  frame.annotation_id = cuda::AnnotationSpans::kNone;
  if (thread.depth > 0) {
    const Frame& outer = thread.frames[thread.depth - 1];
    frame.module = outer.kind == Kind::kScopeBegin && outer.annotation ? outer.name : outer.module;
    frame.annotation_id = outer.annotation_id;
  }
  if (frame.annotation && thread.in_window && !frame.refused)
    frame.annotation_id = annotations_.begin(frame_name(frame), frame.external_id, frame.annotation_id);
  frame.stack.clear();
  if (config_.with_stack && frame.annotation) set_stack(thread, frame);
  const size_t row = row_of(frame);
  frame.utility = row == TableBuilder::kNoRow;
  frame.in_table = thread.in_window && !frame.refused && !frame.utility;
  if (frame.in_table) table_.enter(log, row, frame.start_ns);
  if (told) {
    size_t outer = thread.depth;
    while (outer > 0 && thread.frames[outer - 1].kind != Kind::kOpBegin) --outer;
    Launcher& op = launcher(frame.external_id);
    op = {frame.external_id, outer == 0 ? 0 : thread.frames[outer - 1].external_id,
          frame.in_table ? row : TableBuilder::kNoRow, frame.annotation_id};
    if (!launched_.empty()) launcher_came(op);
  }
  ++thread.depth;
  if (header.kind != Kind::kScopeBegin || early_ends_.empty()) return;
  if (const auto early = early_ends_.find({log, frame.serial}); early != early_ends_.end()) {
    close(thread, log, thread.depth - 1, early->second, true);
    early_ends_.erase(early);
  }
}

void Reader::end_op(Thread& thread, uint32_t log, int64_t end_ns) {
  size_t at = thread.depth;
  while (at > 0 && thread.frames[at - 1].kind != Kind::kOpBegin) --at;
  if (at == 0) {
    if (window_ns_ == INT64_MIN) ++unmatched_;
    return;
  }
  close(thread, log, at - 1, end_ns, false);
}

void Reader::end_step(Thread& thread, uint32_t log, int64_t end_ns) {
  size_t at = thread.depth;
  while (at > 0 && thread.frames[at - 1].kind != Kind::kStepBegin) --at;
  if (at > 0) close(thread, log, at - 1, end_ns, at != thread.depth);
}

void Reader::cut_step(Thread& thread, uint32_t log, size_t frame, int64_t end_ns) {
  thread.frames[frame].cut = true;
  if (thread.frames[frame].in_table)
    table_.rename(log, row_of(thread.frames[frame]), in_table(thread, frame + 1));
  close(thread, log, frame, end_ns, false);
}

void Reader::end_scope(uint32_t log, uint64_t serial, int64_t end_ns, bool same_thread) {
  Thread& thread = threads_[log];
  size_t at = thread.depth;
  while (at > 0 &&
         (thread.frames[at - 1].kind != Kind::kScopeBegin || thread.frames[at - 1].serial != serial))
    --at;
  if (at == 0) {
    early_ends_[{log, serial}] = end_ns;
    return;
  }
  close(thread, log, at - 1, end_ns, !same_thread || at != thread.depth);
}

void Reader::memory(Thread& thread, uint32_t log, const Header& header, const std::byte* payload) {
  if (!thread.in_window || refuse()) return;
  const auto memory = take<Memory>(payload);
  ++events_;
  table_.memory(log, memory.bytes, memory.device_type != 0);
  if (trace_ == nullptr) return;
  trace_->memory({.time_ns = clock_.unix_ns(header.time),
                  .thread = thread.thread,
                  .address = memory.address,
                  .bytes = memory.bytes,
                  .total_allocated = memory.total_allocated,
                  .total_reserved = memory.total_reserved,
                  .device_type = memory.device_type,
                  .device_index = memory.device_index});
}

void Reader::close(Thread& thread, uint32_t log, size_t frame, int64_t end_ns, bool async) {
  const Frame& closing = thread.frames[frame];
  if (thread.in_window && !closing.refused) {
    ++events_;
    steps_ += closing.kind == Kind::kStepBegin && !closing.cut;
    unnamed_ += closing.kind != Kind::kStepBegin && closing.name == Names::kShared;
    if (trace_ != nullptr) write(thread, closing, end_ns, async);
  }
  if (closing.in_table) table_.exit(log, end_ns, closing.flops, in_table(thread, frame + 1));
  std::rotate(thread.frames.begin() + static_cast<ptrdiff_t>(frame),
              thread.frames.begin() + static_cast<ptrdiff_t>(frame) + 1,
              thread.frames.begin() + static_cast<ptrdiff_t>(thread.depth));
  --thread.depth;
}

size_t Reader::in_table(const Thread& thread, size_t from) {
  size_t count = 0;
  for (size_t i = from; i < thread.depth; ++i) count += thread.frames[i].in_table;
  return count;
}

void Reader::write(Thread& thread, const Frame& frame, int64_t end_ns, bool async) {
  HostEvent event;
  event.name = frame_name(frame);
  event.annotation = frame.annotation;
  event.start_ns = frame.start_ns;
  event.end_ns = end_ns;
  event.thread = thread.thread;
  if (async) {
    // It need not nest in its thread, so it goes on the first extra lane that is free at its start.
    auto lane = std::find_if(thread.async_ends.begin(), thread.async_ends.end(),
                             [&](int64_t last) { return last <= frame.start_ns; });
    if (lane == thread.async_ends.end()) lane = thread.async_ends.insert(lane, 0);
    *lane = end_ns;
    event.lane = static_cast<int>(lane - thread.async_ends.begin()) + 1;
  }
  event.external_id = frame.external_id;
  event.sequence = frame.sequence;
  event.forward_thread = frame.forward_thread;
  if (config_.with_stack && frame.module != kNoModule) event.module = name(frame.module).text;
  event.stack = frame.stack;
  event.inputs = frame.inputs;
  trace_->op(event);
}

void Reader::set_stack(const Thread& thread, Frame& frame) {
  frame.stack = frame.kind == Kind::kStepBegin ? call_site(kStepSite) : name(frame.name).site;
  for (size_t i = thread.depth; i > 0; --i) {
    const std::string& outer = thread.frames[i - 1].stack;
    if (outer.empty()) continue;
    if (!frame.stack.empty()) frame.stack += ';';
    frame.stack += outer;
    return;
  }
}

Reader::Launcher& Reader::launcher(uint64_t external_id) {
  if (launchers_.empty()) launchers_.resize(kLaunchers);
  return launchers_[(external_id ^ (external_id >> 40) * 40503) % kLaunchers];
}

void Reader::gpu_record(const Header& header, const std::byte* payload) {
  if (header.kind == Kind::kActivitiesEnd) return gpu_.flush();
  if (header.kind == Kind::kLost) {
    if (clock_.unix_ns(header.time) >= window_ns_) gpu_lost_[name(header.id).text] += take<int64_t>(payload);
    return;
  }
  cuda::GpuActivity activity;
  static_cast<cuda::ActivityFacts&>(activity) =
      activity_facts(header.time, payload, size_t{header.words} * 8 - sizeof header);
  if (cuda::is_event(activity.kind)) {
    if (activity.end != 0 && clock_.unix_ns(activity.end) < window_ns_) return;
    if (refuse()) return;
  }
  activity.name = name(header.id).text;
  gpu_.activity(activity);
}

void Reader::device_work(const cuda::ActivityWriter::DeviceWork& work) {
  const int64_t duration_ns = work.span.end_ns - work.span.start_ns;
  table_.device_work(work.name, duration_ns);
  const auto known = [this](uint64_t id) { return launcher(id).external_id == id; };
  // An op that comes no more, since it found no room, must not be waited for for ever.
  const auto wait_for = [this](uint64_t id) -> Launched* {
    return launched_.size() < kLaunchers || launched_.contains(id) ? &launched_[id] : nullptr;
  };
  if (work.belongs_to != 0) {
    if (known(work.belongs_to)) {
      belongs_to(launcher(work.belongs_to), duration_ns);
    } else if (Launched* const op = wait_for(work.belongs_to)) {
      op->device_ns += duration_ns;
    }
  }
  if (work.launched_by != 0) {
    if (known(work.launched_by)) {
      annotations_.work(launcher(work.launched_by).annotation, work.span);
    } else if (Launched* const op = wait_for(work.launched_by)) {
      op->spans.add(work.span);
    }
  }
}

void Reader::belongs_to(const Launcher& op, int64_t device_ns) {
  std::vector<size_t> rows;
  if (op.row != TableBuilder::kNoRow) rows.push_back(op.row);
  for (uint64_t id = op.caller; id != 0;) {
    const Launcher& caller = launcher(id);
    if (caller.external_id != id) break;  // another one has its place
    if (caller.row != TableBuilder::kNoRow) rows.push_back(caller.row);
    id = caller.caller;
  }
  table_.launched(rows, device_ns);
}

void Reader::launcher_came(const Launcher& op) {
  const auto found = launched_.find(op.external_id);
  if (found == launched_.end()) return;
  belongs_to(op, found->second.device_ns);
  for (const cuda::StreamSpan& span : found->second.spans.list()) annotations_.work(op.annotation, span);
  launched_.erase(found);
}

size_t Reader::row_of(const Frame& frame) {
  if (frame.kind == Kind::kStepBegin)
    return table_.row(frame.cut ? "cut ProfilerStep" : "ProfilerStep*", true);
  const Name& op = name(frame.name);
  return frame.annotation ? op.note : op.row;
}

const Reader::Name& Reader::name(uint32_t id) {
  while (names_.size() <= id) {
    Name& fresh = names_.emplace_back();
    fresh.text = session_.name(static_cast<uint32_t>(names_.size() - 1));
    const bool utility = is_utility_op(fresh.text);
    fresh.row = utility ? TableBuilder::kNoRow : table_.row(fresh.text, false);
    fresh.note = fresh.text == kWaitScope ? TableBuilder::kNoRow : table_.row(fresh.text, true);
    fresh.has_flops = counts_flops(fresh.text);
    if (config_.with_stack) fresh.site = call_site(fresh.text);
  }
  return names_[id];
}

std::string_view Reader::frame_name(const Frame& frame) {
  if (frame.kind != Kind::kStepBegin) return name(frame.name).text;
  // A name with which analysers do not take it for a step among others.
  step_name_ = (frame.cut ? "cut ProfilerStep#" : "ProfilerStep#") + std::to_string(frame.number);
  return step_name_;
}

}  // namespace omni::stream
