// What the profiler's tests need around files: a folder, reading traces back, checking slices.
#pragma once

#include <gtest/gtest.h>
#include <isa-l/igzip_lib.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace omni {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "omni-profiler-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp " + name);
    path_ = name;
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// Makes writes of files beyond size fail, as a full disk does.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t size) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit = {size, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  rlimit before_{};
  void (*handler_)(int);
};

// What can be decompressed of a gzip member that may be cut off.
inline std::string gunzip_beginning(const std::string& bytes) {
  std::string text;
  std::vector<uint8_t> out(1 << 20);
  inflate_state state;
  isal_inflate_init(&state);
  state.crc_flag = ISAL_GZIP;
  state.next_in = reinterpret_cast<uint8_t*>(const_cast<char*>(bytes.data()));
  state.avail_in = static_cast<uint32_t>(bytes.size());
  for (;;) {
    state.next_out = out.data();
    state.avail_out = static_cast<uint32_t>(out.size());
    const int result = isal_inflate(&state);
    const size_t produced = out.size() - state.avail_out;
    text.append(reinterpret_cast<const char*>(out.data()), produced);
    if (result != ISAL_DECOMP_OK || produced == 0) return text;
  }
}

// Decompresses exactly one gzip member; anything behind it is an error.
inline std::string gunzip(const std::string& bytes) {
  std::string text;
  std::vector<uint8_t> out(1 << 20);
  inflate_state state;
  isal_inflate_init(&state);
  state.crc_flag = ISAL_GZIP;
  state.next_in = reinterpret_cast<uint8_t*>(const_cast<char*>(bytes.data()));
  state.avail_in = static_cast<uint32_t>(bytes.size());
  do {
    state.next_out = out.data();
    state.avail_out = static_cast<uint32_t>(out.size());
    const int result = isal_inflate(&state);
    if (result != ISAL_DECOMP_OK) throw std::runtime_error("isal_inflate: " + std::to_string(result));
    const size_t produced = out.size() - state.avail_out;
    if (produced == 0 && state.block_state != ISAL_BLOCK_FINISH)
      throw std::runtime_error("gzip member is cut off");
    text.append(reinterpret_cast<const char*>(out.data()), produced);
  } while (state.block_state != ISAL_BLOCK_FINISH);
  if (state.avail_in != 0) throw std::runtime_error("bytes behind the gzip member");
  return text;
}

inline std::string read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot open " + path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// The content of a file, decompressed if its name says so.
inline std::string read_text(const std::string& path) {
  const std::string bytes = read_bytes(path);
  return path.ends_with(".gz") ? gunzip(bytes) : bytes;
}

inline nlohmann::json read_trace(const std::string& path) { return nlohmann::json::parse(read_text(path)); }

// The X events of a trace that overlap an earlier one of their track without lying inside it, each as a line of text.
// Times are compared in integer nanoseconds.
inline std::vector<std::string> overlaps(const nlohmann::json& trace) {
  struct Slice {
    int64_t start, end;
    const nlohmann::json* event;
  };
  const auto ns = [](const nlohmann::json& us) { return std::llround(us.get<double>() * 1e3); };
  std::map<std::string, std::vector<Slice>> tracks;
  for (const auto& event : trace["traceEvents"]) {
    if (event["ph"] != "X") continue;
    const int64_t start = ns(event["ts"]);
    tracks[event["pid"].dump() + "/" + event["tid"].dump()].push_back(
        {start, start + ns(event["dur"]), &event});
  }
  std::vector<std::string> found;
  for (auto& [track, slices] : tracks) {
    std::sort(slices.begin(), slices.end(), [](const Slice& a, const Slice& b) {
      return a.start != b.start ? a.start < b.start : a.end > b.end;
    });
    std::vector<Slice> open;
    for (const Slice& slice : slices) {
      while (!open.empty() && open.back().end <= slice.start) open.pop_back();
      if (!open.empty() && open.back().end < slice.end) {
        found.push_back(slice.event->dump() + " overlaps " + open.back().event->dump());
      }
      open.push_back(slice);
    }
  }
  return found;
}

}  // namespace omni
