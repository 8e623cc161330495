// The layout of the operator table, as torch prints it.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "profiler/json_text.h"
#include "profiler/table.h"

namespace omni {
namespace {

constexpr size_t kColumnWidth = 12;
constexpr std::string_view kGap = "  ";

template <typename... Args>
std::string printf_string(const char* format, Args... args) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), format, args...);
  return text.data();
}

// Microseconds, as torch has them: divided before anything else is computed, so that the last digits agree.
double to_us(int64_t ns) { return static_cast<double>(ns) / 1e3; }

std::string format_time(double us) {
  if (us >= 1e6) return printf_string("%.3fs", us / 1e6);
  if (us >= 1e3) return printf_string("%.3fms", us / 1e3);
  return printf_string("%.3fus", us);
}

std::string format_share(double part, double whole) {
  return whole == 0 ? "NaN" : printf_string("%.2f%%", part * 100.0 / whole);
}

std::string format_bytes(int64_t bytes) {
  constexpr double kKilo = 1024;
  const double size = std::abs(static_cast<double>(bytes));
  const auto value = static_cast<double>(bytes);
  if (size >= kKilo * kKilo * kKilo) return printf_string("%.2f GB", value / (kKilo * kKilo * kKilo));
  if (size >= kKilo * kKilo) return printf_string("%.2f MB", value / (kKilo * kKilo));
  if (size >= kKilo) return printf_string("%.2f KB", value / kKilo);
  return std::to_string(bytes) + " B";
}

// The unit in which the smallest count of operations still has digits before the point.
struct FlopsUnit {
  double scale = 0;  // 0: no row has any
  std::string header;
};

FlopsUnit flops_unit(const std::vector<const TableRow*>& rows) {
  constexpr std::array<const char*, 6> kUnits = {"FLOPs", "KFLOPs", "MFLOPs", "GFLOPs", "TFLOPs", "PFLOPs"};
  uint64_t least = 0;
  for (const TableRow* row : rows) {
    if (row->flops > 0 && (least == 0 || row->flops < least)) least = row->flops;
  }
  if (least == 0) return {};
  const double power =
      std::clamp(std::floor(std::log10(static_cast<double>(least)) / 3), 0.0, double{kUnits.size() - 1});
  return {std::pow(10.0, -3.0 * power), std::string("Total ") + kUnits[static_cast<size_t>(power)]};
}

class Layout {
 public:
  explicit Layout(size_t name_width) : name_width_(name_width) {}

  // Every cell is right-aligned; the first is as wide as names, the others have one width.
  void line(const std::vector<std::string>& cells) {
    for (size_t i = 0; i < cells.size(); ++i) {
      const size_t width = i == 0 ? name_width_ : kColumnWidth;
      const size_t length = utf8_length(cells[i]);
      text_.append(width > length ? width - length : 0, ' ');
      text_ += cells[i];
      text_ += kGap;
    }
    text_ += '\n';
  }

  void rule(size_t columns) {
    for (size_t i = 0; i < columns; ++i) {
      text_.append(i == 0 ? name_width_ : kColumnWidth, '-');
      text_ += kGap;
    }
    text_ += '\n';
  }

  void footer(const std::string& text) { text_ += text + "\n"; }

  std::string take() { return std::move(text_); }

 private:
  size_t name_width_;
  std::string text_;
};

std::vector<const TableRow*> sorted(const std::vector<TableRow>& rows, bool by_device) {
  std::vector<const TableRow*> order;
  for (const TableRow& row : rows) {
    if (row.calls > 0) order.push_back(&row);
  }
  std::stable_sort(order.begin(), order.end(), [by_device](const TableRow* a, const TableRow* b) {
    return by_device ? a->device_self_ns > b->device_self_ns : a->self_ns > b->self_ns;
  });
  return order;
}

// A name on one line: control bytes as they are written in C.
std::string shown_name(const std::string& name) {
  std::string shown;
  for (const char c : name) {
    if (c == '\n') {
      shown += "\\n";
    } else if (c == '\t') {
      shown += "\\t";
    } else if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') {
      shown += printf_string("\\x%02x", static_cast<unsigned>(static_cast<unsigned char>(c)));
    } else {
      shown += c;
    }
  }
  return shown;
}

std::string cut_name(const std::string& name, size_t max_width) {
  constexpr size_t kDots = 3;
  if (utf8_length(name) < max_width - kDots) return name;
  return std::string(utf8_prefix(name, max_width - kDots)) + "...";
}

// What the shares are shares of.
struct Sums {
  double self_us = 0;
  double device_us = 0;
  bool device = false;         // any device time
  bool device_memory = false;  // any op that kept memory of a device
};

std::vector<std::string> headers(const TableOptions& options, const Sums& sums, const FlopsUnit& flops) {
  std::vector<std::string> cells = {"Name",        "Self CPU %", "Self CPU",
                                    "CPU total %", "CPU total",  "CPU time avg"};
  if (sums.device) cells.insert(cells.end(), {"Self CUDA", "Self CUDA %", "CUDA total", "CUDA time avg"});
  if (options.with_memory) cells.insert(cells.end(), {"CPU Mem", "Self CPU Mem"});
  if (options.with_memory && sums.device_memory) cells.insert(cells.end(), {"CUDA Mem", "Self CUDA Mem"});
  cells.emplace_back("# of Calls");
  if (flops.scale > 0) cells.push_back(flops.header);
  return cells;
}

std::vector<std::string> row_cells(const TableRow& row, const TableOptions& options, const Sums& sums,
                                   const FlopsUnit& flops) {
  const double total = to_us(row.total_ns);
  const double self = to_us(row.self_ns);
  const auto calls = static_cast<double>(row.calls);
  std::vector<std::string> cells = {cut_name(shown_name(row.name), options.max_name_width),
                                    format_share(self, sums.self_us),
                                    format_time(self),
                                    format_share(total, sums.self_us),
                                    format_time(total),
                                    format_time(total / calls)};
  if (sums.device) {
    const double device_total = to_us(row.device_total_ns);
    const double device_self = to_us(row.device_self_ns);
    cells.insert(cells.end(), {format_time(device_self), format_share(device_self, sums.device_us),
                               format_time(device_total), format_time(device_total / calls)});
  }
  if (options.with_memory)
    cells.insert(cells.end(), {format_bytes(row.total_bytes), format_bytes(row.self_bytes)});
  if (options.with_memory && sums.device_memory)
    cells.insert(cells.end(), {format_bytes(row.device_total_bytes), format_bytes(row.device_self_bytes)});
  cells.push_back(std::to_string(row.calls));
  if (flops.scale > 0) {
    cells.push_back(row.flops == 0 ? "--"
                                   : printf_string("%8.3f", static_cast<double>(row.flops) * flops.scale));
  }
  return cells;
}

}  // namespace

std::string format_table(const std::vector<TableRow>& rows, const TableOptions& options) {
  Sums sums;
  for (const TableRow& row : rows) {
    sums.device = sums.device || row.device_self_ns > 0;
    sums.device_memory = sums.device_memory || row.device_self_bytes > 0;
    sums.self_us += to_us(row.self_ns);
    // Annotations on a device cover kernels that count already.
    if (row.device && !row.annotation) sums.device_us += to_us(row.device_self_ns);
  }
  const std::vector<const TableRow*> order = sorted(rows, sums.device);
  if (order.empty()) return "";

  constexpr size_t kNameMargin = 4;
  size_t name_width = 0;
  for (const TableRow* row : order)
    name_width = std::max(name_width, utf8_length(shown_name(row->name)) + kNameMargin);
  name_width = std::min(name_width, options.max_name_width);

  const FlopsUnit flops = options.with_flops ? flops_unit(order) : FlopsUnit{};
  const std::vector<std::string> header = headers(options, sums, flops);
  Layout layout(name_width);
  layout.rule(header.size());
  layout.line(header);
  layout.rule(header.size());
  for (size_t i = 0; i < std::min(order.size(), options.row_limit); ++i) {
    layout.line(row_cells(*order[i], options, sums, flops));
  }
  layout.rule(header.size());
  layout.footer("Self CPU time total: " + format_time(sums.self_us));
  if (sums.device) layout.footer("Self CUDA time total: " + format_time(sums.device_us));
  return layout.take();
}

}  // namespace omni
