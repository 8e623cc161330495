// The operator table that torch prints as key_averages().table(), built from events while they come.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace omni {

// All calls of one name.
struct TableRow {
  std::string name;
  bool annotation = false;
  bool device = false;  // work on a device, not a host op
  int64_t calls = 0;
  int64_t total_ns = 0;  // host time, with what was called
  int64_t self_ns = 0;   // host time, without
  int64_t device_total_ns = 0;
  int64_t device_self_ns = 0;
  int64_t total_bytes = 0;  // host memory allocated minus released
  int64_t self_bytes = 0;
  int64_t device_total_bytes = 0;
  int64_t device_self_bytes = 0;
  uint64_t flops = 0;
};

// Adds up rows from the events of each thread in the order in which they happened: enter and exit of ops nested, and
// memory events between them. The rules are those of torch's profiler: a call of the same name as its only caller's
// and its only child is the caller (aten::add_ that calls aten::add_ to convert its operand), ProfilerStep#n is
// ProfilerStep*, memory outside of all ops is an op [memory]. Only in one point does it differ: torch charges an
// allocation to all ops that run at that time, in whatever thread; this, to those of its own thread.
//
// Not thread-safe; may be handed from thread to thread.
class TableBuilder {
 public:
  static constexpr size_t kNoRow = SIZE_MAX;

  // The row of a name, for callers that know it before.
  size_t row(std::string_view name, bool annotation) { return row(name, annotation, false); }

  void enter(int64_t thread, size_t row, int64_t start_ns);
  void enter(int64_t thread, std::string_view name, bool annotation, int64_t start_ns) {
    enter(thread, row(name, annotation), start_ns);
  }
  // Ends the innermost call, or, where calls do not nest, the one that has above others inside it still open.
  void exit(int64_t thread, int64_t end_ns, uint64_t flops, size_t above = 0);
  // Gives an open call another name: the innermost, or the one that has above others inside it.
  void rename(int64_t thread, size_t row, size_t above);
  // device: memory of a device, not of the host.
  void memory(int64_t thread, int64_t bytes, bool device = false);
  // An op that began in one thread and ended in another: it has neither children nor self time.
  void async_op(std::string_view name, int64_t duration_ns);
  // A kernel or copy on a device, launched while the thread's innermost op ran.
  void device_work(int64_t thread, std::string_view name, bool annotation, int64_t duration_ns);

  // The same, reported when the ops have ended: the work itself, and what the ops that launched it have of it. callers: their
  // rows, the innermost first.
  void device_work(std::string_view name, int64_t duration_ns);
  void launched(const std::vector<size_t>& callers, int64_t duration_ns);

  // The rows in the order of their first events. Ops that are still open are not in them.
  const std::vector<TableRow>& rows() const { return rows_; }

 private:
  // One call, complete or open.
  struct Call {
    size_t row = 0;
    int64_t start_ns = 0;
    int64_t total_ns = 0;
    int64_t children_ns = 0;
    int64_t device_ns = 0;           // of what it launched itself
    int64_t device_children_ns = 0;  // of what its children launched
    int64_t bytes = 0;
    int64_t children_bytes = 0;
    int64_t device_bytes = 0;
    int64_t device_children_bytes = 0;
    uint64_t flops = 0;
    int64_t children = 0;
    bool has_only =
        false;  // the first child is waiting in only: it may turn out to be a duplicate of its caller
  };
  struct Frame {
    Call call;
    Call only;
  };

  size_t row(std::string_view name, bool annotation, bool device);
  void add(const Call& call);

  std::vector<TableRow> rows_;
  std::unordered_map<std::string, size_t> index_;  // row key -> position in rows_
  std::string key_;                                // reused
  std::unordered_map<int64_t, std::vector<Frame>> stacks_;
};

// The annotation of the time in which a worker has nothing to do (profiler/worker.go). No operator, and no table has it:
// it would be most of the time there is.
constexpr std::string_view kWaitScope = "stage.wait";

// The ops that torch leaves out of its own tables: parts of profiling itself.
bool is_utility_op(std::string_view name);

// What the table leaves out or shows, as torch's profiler was asked.
struct TableOptions {
  bool with_memory = false;
  bool with_flops = false;
  size_t row_limit = 100;
  size_t max_name_width = 55;
};

// The table, sorted by self device time if there is any, else by self CPU time; empty if there are no rows.
std::string format_table(const std::vector<TableRow>& rows, const TableOptions& options);

}  // namespace omni
