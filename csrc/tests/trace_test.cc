// The pieces of a trace file: JSON text, lanes, events, the file itself.
#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "profiler/json_text.h"
#include "profiler/output_file.h"
#include "profiler/trace_writer.h"
#include "profiler_files.h"
#include "status.h"

namespace omni {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

TEST(JSONTextTest, Strings) {
  const struct {
    std::string text;
    std::string want;
  } cases[] = {
      {"", "\"\""},
      {"aten::mm", "\"aten::mm\""},
      {"a\"b\\c/d", "\"a\\\"b\\\\c/d\""},
      {"\n\t\r", "\"\\n\\t\\r\""},
      {std::string("nul\0end", 7), "\"nul\\u0000end\""},
      {"\x01\x1f\x7f", "\"\\u0001\\u001f\x7f\""},
      {"\xC3\xA9\xE2\x9C\x93\xF0\x9F\x98\x80", "\"\xC3\xA9\xE2\x9C\x93\xF0\x9F\x98\x80\""},
      {"cut \xF0\x9F\x98", "\"cut \xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""},
      {"overlong \xC0\x80 \xE0\x80\x80",
       "\"overlong \xEF\xBF\xBD\xEF\xBF\xBD \xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""},
      {"too high \xF4\x90\x80\x80", "\"too high \xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""},
      {"lone \x80", "\"lone \xEF\xBF\xBD\""},
  };
  for (const auto& test : cases) {
    std::string out;
    append_json_string(out, test.text);
    EXPECT_EQ(out, test.want);
    EXPECT_TRUE(json::accept(out)) << out;
  }
}

TEST(JSONTextTest, MicrosecondsHaveThreeDecimals) {
  const struct {
    int64_t ns;
    const char* want;
  } cases[] = {{0, "0.000"},    {7, "0.007"},
               {70, "0.070"},   {999, "0.999"},
               {1000, "1.000"}, {1234567, "1234.567"},
               {-5, "0.000"},   {INT64_C(7889237999999999), "7889237999999.999"}};
  for (const auto& test : cases) {
    std::string out;
    append_json_us(out, test.ns);
    EXPECT_EQ(out, test.want);
  }
}

TEST(JSONTextTest, CountsCharactersNotBytes) {
  EXPECT_EQ(utf8_length("caf\xC3\xA9"), 4u);
  EXPECT_EQ(utf8_prefix("caf\xC3\xA9s", 4), "caf\xC3\xA9");
  EXPECT_EQ(utf8_prefix("ab", 5), "ab");
}

TEST(LanesTest, OnlyNestedEventsShareALane) {
  Lanes lanes;
  EXPECT_EQ(lanes.place(0, 7, 0, 100), 0);
  EXPECT_EQ(lanes.place(0, 7, 10, 50), 0) << "inside";
  EXPECT_EQ(lanes.place(0, 7, 40, 60), 1) << "overlaps the one before";
  EXPECT_EQ(lanes.place(0, 7, 45, 70), 2) << "overlaps both";
  EXPECT_EQ(lanes.place(0, 7, 60, 100), 0) << "ends with the outer one";
  EXPECT_EQ(lanes.place(0, 7, 100, 120), 0) << "begins where all have ended";
  EXPECT_EQ(lanes.place(0, 7, 119, 121), 1) << "overlaps by one nanosecond";
  EXPECT_EQ(lanes.place(0, 8, 110, 130), 0) << "another stream";
  EXPECT_EQ(lanes.place(1, 7, 110, 130), 0) << "another device";
  EXPECT_EQ(lanes.place(0, 8, 110, 130), 0) << "the same time again nests";
}

TEST(OutputFileTest, CompressesToOneMember) {
  const TemporaryFolder folder;
  // More than the buffers hold, of bytes that do not compress, in pieces of all sizes.
  std::string all;
  uint32_t state = 1;
  OutputFile file((folder.path() / "a.gz").string(), true);
  for (size_t piece = 0; piece < 3000; piece += 7) {
    std::string bytes(piece, ' ');
    for (char& c : bytes) c = static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
    file.write(bytes);
    all += bytes;
  }
  file.commit();
  EXPECT_EQ(read_text(file.path()), all);
  EXPECT_EQ(file.bytes_in(), static_cast<int64_t>(all.size()));
  EXPECT_EQ(file.bytes_out(), static_cast<int64_t>(fs::file_size(file.path())));
}

TEST(OutputFileTest, WhatIsFlushedCanBeReadBeforeTheEnd) {
  const TemporaryFolder folder;
  OutputFile file((folder.path() / "a.gz").string(), true);
  std::string all;
  for (int i = 0; i < 5; ++i) {
    file.write("piece " + std::to_string(i) + "\n");
    all += "piece " + std::to_string(i) + "\n";
    file.flush();
    EXPECT_EQ(gunzip_beginning(read_bytes(file.path() + ".tmp")), all);
    const int64_t size = file.bytes_out();
    file.flush();
    EXPECT_EQ(file.bytes_out(), size) << "there was nothing new";
  }
  file.commit();
  EXPECT_EQ(read_text(file.path()), all) << "still one member";
}

TEST(OutputFileTest, StaysIfWritingFailsAndHalfOfItIsWorthSomething) {
  const TemporaryFolder folder;
  const FileSizeLimit limit(1000);
  for (const bool keep : {false, true}) {
    const std::string path = (folder.path() / (keep ? "kept" : "gone")).string();
    {
      OutputFile file(path, false);
      file.write("half");
      if (keep) file.keep_on_failure();
      EXPECT_THROW(file.write(std::string(2000, 'x')), Error);
    }
    EXPECT_EQ(fs::exists(path + ".tmp"), keep);
    if (keep) {
      EXPECT_EQ(read_text(path + ".tmp").substr(0, 4), "half");
    }
    const OutputFile unharmed((folder.path() / "other").string(), false);
  }
  EXPECT_FALSE(fs::exists(folder.path() / "other.tmp")) << "nothing went wrong with it";
}

TEST(OutputFileTest, AppearsWhenCommitted) {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "a.txt";
  {
    OutputFile file(path.string(), false);
    file.write("x");
    EXPECT_FALSE(fs::exists(path));
    EXPECT_TRUE(fs::exists(path.string() + ".tmp"));
  }
  EXPECT_TRUE(fs::is_empty(folder.path())) << "an abandoned file stays";
  OutputFile file(path.string(), false);
  file.commit();
  EXPECT_TRUE(fs::exists(path));
  EXPECT_FALSE(fs::exists(path.string() + ".tmp"));
}

TEST(OutputFileTest, ReplacesNothing) {
  const TemporaryFolder folder;
  const std::string path = (folder.path() / "a.txt").string();
  OutputFile first(path, false);
  EXPECT_THROW(OutputFile(path, false), Error) << "two writers of one name";
  // Another process may create the name while this one writes.
  std::ofstream(path) << "theirs";
  first.write("ours");
  EXPECT_THROW(first.commit(), Error);
  EXPECT_EQ(read_text(path), "theirs");
  EXPECT_THROW(OutputFile(path, false), Error) << "a name that exists";
}

TEST(OutputFileTest, TakesAReservedName) {
  const TemporaryFolder folder;
  const std::string path = (folder.path() / "a.txt").string();
  std::ofstream(path + ".tmp") << "";
  EXPECT_THROW(OutputFile(path, false), Error) << "a name that is another's";
  OutputFile file(path, false, Name::kReserved);
  file.write("x");
  file.commit();
  EXPECT_EQ(read_text(path), "x");
  EXPECT_FALSE(fs::exists(path + ".tmp"));
  EXPECT_THROW(OutputFile(path, false, Name::kReserved), Error) << "a name that exists";
}

TEST(OutputFileTest, NamesTheMissingFolder) {
  try {
    const OutputFile file("/nowhere/at/all/a.txt", false);
    FAIL() << "created";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), OMNI_NOT_FOUND);
    EXPECT_NE(std::string(error.what()).find("/nowhere/at/all/a.txt"), std::string::npos) << error.what();
  }
}

// A trace of one step that launches three kernels, of which two overlap on one stream, and a copy.
std::string write_device_trace(const fs::path& folder) {
  RecorderConfig config;
  config.session = "s1";
  config.worker = "stage-0";
  config.world_size = 1;
  config.trace_path = (folder / "stage-0_s1.1.pt.trace.json.gz").string();
  constexpr int64_t kStart = INT64_C(1795309451050000000);
  TraceWriter writer(config, kStart, {{"torch_version", "0"}});
  writer.op({.name = "ProfilerStep#0",
             .annotation = true,
             .start_ns = kStart,
             .end_ns = kStart + 90000,
             .thread = 5});
  writer.op({.name = "aten::mm",
             .start_ns = kStart + 1000,
             .end_ns = kStart + 20000,
             .thread = 5,
             .external_id = 3,
             .sequence = 4,
             .forward_thread = 1,
             .module = "thinker.lm_head",
             .inputs = "\"Input Dims\":[[1, 2], [2, 3]]"});
  writer.memory({.time_ns = kStart + 2000, .thread = 5, .address = 99, .bytes = -64, .total_allocated = 128});
  const struct {
    const char* category;
    const char* name;
    int64_t start, end, process, thread;
    bool device;
    const char* args;
  } activities[] = {
      {"cuda_runtime", "cudaLaunchKernel", 3000, 4000, ::getpid(), 5, false, "\"correlation\":1"},
      {"kernel", "gemm<\"a\">", 5000, 9000, 0, 7, true, "\"stream\":7,\"device\":0,\"correlation\":1"},
      {"kernel", "overlapping", 8000, 12000, 0, 7, true, "\"stream\":7,\"device\":0,\"correlation\":2"},
      {"kernel", "after", 12000, 13000, 0, 7, true, "\"stream\":7,\"device\":0,\"correlation\":3"},
      {"gpu_memcpy", "Memcpy HtoD (Pinned -> Device)", 5000, 6000, 0, 8, true, "\"stream\":8,\"bytes\":4"},
  };
  Lanes lanes;
  for (const auto& a : activities) {
    writer.activity({.category = a.category,
                     .name = a.name,
                     .start_ns = kStart + a.start,
                     .end_ns = kStart + a.end,
                     .process = a.process,
                     .thread = a.thread,
                     .lane = a.device ? lanes.place(a.process, a.thread, a.start, a.end) : 0,
                     .device = a.device,
                     .args = a.args});
  }
  writer.flow("ac2g", 1, true, kStart + 3000, ::getpid(), 5);
  writer.flow("ac2g", 1, false, kStart + 5000, 0, 7);
  writer.track_name(0, 7, "stream 7", 7);
  writer.finish(kStart + 100000, {{"dropped", {{"pool", 0}}}});
  return config.trace_path;
}

TEST(TraceWriterTest, EventsHaveKinetosForm) {
  const TemporaryFolder folder;
  const json trace = read_trace(write_device_trace(folder.path()));
  std::map<std::string, json> by_name;
  for (const auto& event : trace["traceEvents"]) {
    by_name.emplace(event["name"].get<std::string>() + "/" + event["ph"].get<std::string>(), event);
    // What the TensorBoard plugin fails without.
    EXPECT_TRUE(event.contains("name") && event.contains("ph") && event.contains("pid")) << event;
    EXPECT_TRUE(event["ph"] != "X" || (event.contains("cat") && event.contains("dur"))) << event;
  }
  const json op = by_name.at("aten::mm/X");
  EXPECT_EQ(op["cat"], "cpu_op");
  EXPECT_EQ(op["tid"], 5);
  EXPECT_EQ(op["pid"], ::getpid());
  EXPECT_EQ(op["dur"], 19.0);
  EXPECT_EQ(op["args"],
            json::parse(R"({"External id":3,"Record function id":0,"Sequence number":4,"Fwd thread id":1,
      "Ev Idx":1,"Module Hierarchy":"thinker.lm_head","Input Dims":[[1,2],[2,3]]})"));
  EXPECT_EQ(by_name.at("ProfilerStep#0/X")["cat"], "user_annotation");
  const json memory = by_name.at("[memory]/i");
  EXPECT_EQ(memory["args"]["Bytes"], -64);
  EXPECT_EQ(memory["s"], "t");

  const json overlapping = by_name.at("overlapping/X");
  EXPECT_EQ(overlapping["pid"], 0);
  EXPECT_NE(overlapping["tid"], 7) << "overlaps gemm, so it needs a track of its own";
  EXPECT_EQ(overlapping["args"]["stream"], 7);
  EXPECT_EQ(by_name.at("after/X")["tid"], 7);
  EXPECT_EQ(by_name.at("ac2g/s")["id"], 1);
  EXPECT_EQ(by_name.at("ac2g/f")["bp"], "e");
  EXPECT_EQ(overlaps(trace), std::vector<std::string>());

  EXPECT_EQ(by_name.at("process_name/M")["args"]["name"], "stage-0");
  EXPECT_EQ(trace["omniTotals"]["dropped"]["pool"], 0);
  EXPECT_EQ(trace["traceName"], (folder.path() / "stage-0_s1.1.pt.trace.json.gz").string());
}

// The names of the tracks of a file that may be cut off.
std::map<int64_t, std::string> track_names(const std::string& text) {
  std::map<int64_t, std::string> names;
  const json trace = json::parse(text);
  for (const auto& event : trace["traceEvents"]) {
    if (event["name"] == "thread_name") names[event["tid"]] = event["args"]["name"];
  }
  return names;
}

TEST(TraceWriterTest, TracksOfThreadsHaveTheirNames) {
  const TemporaryFolder folder;
  RecorderConfig config;
  config.worker = "stage-0";
  config.use_gzip = false;
  config.trace_path = (folder.path() / "t.json").string();
  TraceWriter writer(config, 1, {});
  const auto own = static_cast<int64_t>(::syscall(SYS_gettid));
  constexpr int64_t kEnded = 9999999;  // no thread has it: process numbers end before
  char before[16] = {};
  ::pthread_getname_np(::pthread_self(), before, sizeof before);
  writer.thread_name(own, "not any more");
  writer.thread_name(kEnded, "helper");
  writer.op({.name = "a", .start_ns = 1, .end_ns = 5, .thread = own});
  writer.op({.name = "b", .start_ns = 1, .end_ns = 5, .thread = kEnded});
  writer.op({.name = "c", .start_ns = 2, .end_ns = 6, .thread = kEnded, .lane = 1});
  writer.op({.name = "d", .start_ns = 2, .end_ns = 6, .thread = 9999998});
  writer.flush();
  const auto expect = [&](const std::string& name, const std::string& text) {
    const std::map<int64_t, std::string> names = track_names(text);
    EXPECT_EQ(names.at(own), "thread " + std::to_string(own) + " (" + name + ")");
    EXPECT_EQ(names.at(kEnded), "thread 9999999 (helper)");
    EXPECT_EQ(names.at(kEnded + kLaneStride), "thread 9999999 (helper) overlap 1");
    EXPECT_EQ(names.at(9999998), "thread 9999998");
  };
  expect(before, read_text(config.trace_path + ".tmp") + "]}");
  ::pthread_setname_np(::pthread_self(), "renamed");
  writer.finish(10, json::object());
  ::pthread_setname_np(::pthread_self(), before);
  expect("renamed", read_text(config.trace_path));
}

TEST(TraceWriterTest, TimesAreRelativeToTheDay) {
  const TemporaryFolder folder;
  const json trace = read_trace(write_device_trace(folder.path()));
  const int64_t base = trace["baseTimeNanoseconds"];
  EXPECT_EQ(base % (INT64_C(86400) * 1000000000), 0);
  for (const auto& event : trace["traceEvents"]) {
    // Below 2^41 microseconds a double holds every nanosecond, for readers that know no better.
    EXPECT_GE(event.value("ts", 0.0), 0) << event;
    EXPECT_LT(event.value("ts", 0.0), 2.1e12) << event;
    if (event["name"] == "aten::mm") {
      EXPECT_EQ(std::llround(event["ts"].get<double>() * 1000) + base, INT64_C(1795309451050001000));
    }
  }
}

TEST(TraceWriterTest, TheHeaderIsOnDiskAtOnceAndEventsWhenFlushed) {
  const TemporaryFolder folder;
  RecorderConfig config;
  config.worker = "stage-0";
  config.trace_path = (folder.path() / "t.gz").string();
  TraceWriter writer(config, 1, {});
  const auto on_disk = [&] { return gunzip_beginning(read_bytes(config.trace_path + ".tmp")) + "]}"; };
  EXPECT_EQ(json::parse(on_disk())["omni"]["worker"], "stage-0");
  writer.op({.name = "aten::mm", .start_ns = 1, .end_ns = 2, .thread = 5});
  EXPECT_EQ(on_disk().find("aten::mm"), std::string::npos);
  writer.flush();
  EXPECT_EQ(json::parse(on_disk())["traceEvents"].back()["name"], "aten::mm");
}

}  // namespace
}  // namespace omni
