// The table of call sites.
#include "profiler/call_sites.h"

#include <array>
#include <atomic>
#include <functional>
#include <mutex>
#include <unordered_map>

#include "profiler/caller_sites.h"

namespace omni {
namespace {

std::atomic<bool> wanted{false};

struct Sites {
  std::mutex mutex;  // guards what follows
  std::unordered_map<std::string, std::string> by_name;
};

Sites& sites() {
  static Sites* const all = new Sites;  // never destroyed: threads may outlive anything
  return *all;
}

// The path below the root of the sources: what comes before it is the machine that built.
std::string_view relative(std::string_view file) {
  const size_t at = file.rfind("/csrc/");
  if (at != std::string_view::npos) file.remove_prefix(at + 1);
  while (file.starts_with("../")) file.remove_prefix(3);
  return file;
}

// The name of a function without its type, namespaces and parameters.
std::string_view short_name(std::string_view function) {
  function = function.substr(0, function.find('('));
  const size_t blank = function.rfind(' ');
  if (blank != std::string_view::npos) function.remove_prefix(blank + 1);
  for (const std::string_view outer : {"omni::", "{anonymous}::"}) {
    const size_t at = function.rfind(outer);
    if (at != std::string_view::npos) function.remove_prefix(at + outer.size());
  }
  return function;
}

}  // namespace

void want_call_sites(bool on) { wanted.store(on, std::memory_order_relaxed); }

void note_call_site(std::string_view name, const std::source_location& site) {
  if (!wanted.load(std::memory_order_relaxed)) return;
  thread_local std::array<size_t, 512> noted{};
  const size_t hash = std::hash<std::string_view>()(name) | 1;
  size_t& seen = noted[(hash >> 1) % noted.size()];
  if (seen == hash) return;
  seen = hash;
  std::string text(relative(site.file_name()));
  text += "(" + std::to_string(site.line()) + "): ";
  text += short_name(site.function_name());
  note_caller_site(name, text);
}

void note_caller_site(std::string_view name, std::string_view site) {
  if (!wanted.load(std::memory_order_relaxed)) return;
  Sites& all = sites();
  const std::lock_guard lock(all.mutex);
  // Programs that make up names do not get to fill the memory with them.
  constexpr size_t kMost = 65536;
  if (all.by_name.size() < kMost) all.by_name.insert_or_assign(std::string(name), std::string(site));
}

std::string call_site(std::string_view name) {
  Sites& all = sites();
  const std::lock_guard lock(all.mutex);
  const auto it = all.by_name.find(std::string(name));
  return it == all.by_name.end() ? std::string() : it->second;
}

}  // namespace omni
