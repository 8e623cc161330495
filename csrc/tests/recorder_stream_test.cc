// What is particular to the stream recorder: threads, sessions and scopes that do not nest, a pool that runs empty, time.
#include <ATen/ATen.h>
#include <ATen/ThreadLocalState.h>
#include <c10/util/ApproximateClock.h>
#include <gtest/gtest.h>

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "profiler/recorder.h"
#include "profiler/scope.h"
#include "profiler/stream_clock.h"
#include "profiler/stream_log.h"
#include "profiler_files.h"

namespace omni {
namespace {

using nlohmann::json;

class StreamTest : public testing::Test {
 protected:
  std::unique_ptr<Recorder> start(const std::string& session = "s1") {
    return start_recorder({{"recorder", "stream"},
                           {"session", session},
                           {"worker", "stage-0"},
                           {"trace_path", (folder_.path() / (session + ".gz")).string()},
                           {"table_path", (folder_.path() / (session + ".txt")).string()},
                           {"record_shapes", true},
                           {"with_stack", true}});
  }

  json finish(Recorder& recorder) {
    recorder.stop();
    result_ = recorder.finish();
    table_ = read_text(result_["files"][1]["path"]);
    return read_trace(result_["files"][0]["path"]);
  }

  static std::map<std::string, std::vector<json>> by_name(const json& trace) {
    std::map<std::string, std::vector<json>> events;
    for (const auto& event : trace["traceEvents"]) {
      if (event["ph"] == "X") events[event["name"]].push_back(event);
    }
    return events;
  }

  static std::unique_ptr<at::RecordFunction> open_scope(const char* name) {
    auto scope = std::make_unique<at::RecordFunction>(at::RecordScope::USER_SCOPE);
    if (scope->isActive()) scope->before(std::string_view(name));
    return scope;
  }

  TemporaryFolder folder_;
  json result_;
  std::string table_;
};

TEST_F(StreamTest, WhatWasRecordedIsSoonOnDisk) {
  const auto recorder = start();
  const std::string unfinished = (folder_.path() / "s1.gz.tmp").string();
  constexpr int kRounds = 2;
  for (int round = 0; round < kRounds; ++round) {
    // Far less than a chunk or a buffer holds.
    const std::string name = "round " + std::to_string(round);
    {
      const Scope scope(name);
      at::ones({2});
    }
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    while (gunzip_beginning(read_bytes(unfinished)).find(name) == std::string::npos) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "a killed process would leave nothing of it";
      std::this_thread::yield();
    }
    EXPECT_GT(recorder->status().trace_bytes, 0);
  }
  at::ones({3});
  const json trace = finish(*recorder);
  auto events = by_name(trace);
  EXPECT_EQ(events["aten::ones"].size(), size_t{kRounds + 1}) << "each once";
  EXPECT_EQ(events["round 0"].size(), 1u);
  EXPECT_EQ(result_["dropped"], json::object());
}

TEST(StreamLogTest, CollectsEachRecordOnce) {
  using stream::Filled;
  using stream::Header;
  using stream::Hub;
  using stream::ThreadLog;
  const auto session = Hub::get().open();
  at::RecordFunction fn(at::RecordScope::FUNCTION);
  ThreadLog* const log = ThreadLog::current();
  ASSERT_NE(log, nullptr);
  size_t records = 0;
  const auto count = [&records](const Filled& filled) {
    const uint32_t used = filled.chunk->used;
    for (uint32_t at = filled.begin; at < used; ++records) {
      Header header;
      std::memcpy(&header, filled.chunk->bytes.data() + at, sizeof header);
      at += header.words * 8u;
    }
  };
  // Several chunks, collected at moments that have nothing to do with their ends.
  constexpr size_t kOps = 40000;
  for (size_t i = 0; i < kOps; ++i) {
    log->op_begin(fn, false);
    log->op_end();
    if (i % 1777 != 0) continue;
    for (const Filled& filled : Hub::get().collect(*session)) count(filled);
    EXPECT_EQ(records, 2 * (i + 1));
  }
  Hub::get().close();
  for (Filled filled; session->next(filled);) count(filled);
  EXPECT_EQ(records, 2 * kOps);
  EXPECT_EQ(session->dropped(), 0);
  Hub::get().trim();
}

TEST_F(StreamTest, ScopesThatOverlapGoOnTheirOwnTracks) {
  const auto recorder = start();
  auto a = open_scope("a");
  auto b = open_scope("b");
  at::ones({2});
  a.reset();
  auto c = open_scope("c");
  b.reset();
  c.reset();
  at::ones({3});
  const json trace = finish(*recorder);
  auto events = by_name(trace);
  ASSERT_EQ(events["a"].size() + events["b"].size() + events["c"].size(), 3u);
  EXPECT_EQ(events["aten::ones"].size(), 2u);
  EXPECT_EQ(overlaps(trace), std::vector<std::string>());
  EXPECT_NE(events["a"][0]["tid"], events["c"][0]["tid"]);
  EXPECT_EQ(result_["dropped"], json::object());
  EXPECT_NE(table_.find(" a  "), std::string::npos) << table_;
}

TEST_F(StreamTest, AScopeMayEndOnAnotherThread) {
  const auto recorder = start();
  const at::ThreadLocalState state;
  // Ended by a thread whose records are read before those of the thread that began it, and after.
  for (const bool hand_over_first : {true, false}) {
    auto scope = open_scope(hand_over_first ? "early" : "late");
    std::thread([&] {
      const at::ThreadLocalStateGuard guard(state);
      at::ones({1});
      scope.reset();
    }).join();
    at::ones({2});
  }
  const json trace = finish(*recorder);
  auto events = by_name(trace);
  ASSERT_EQ(events["early"].size(), 1u);
  ASSERT_EQ(events["late"].size(), 1u);
  EXPECT_EQ(overlaps(trace), std::vector<std::string>());
  EXPECT_EQ(result_["dropped"], json::object());
}

TEST_F(StreamTest, WhatBeganInOneSessionIsNotInTheNext) {
  auto first = start("s1");
  auto scope = open_scope("across");
  const json one = finish(*first);
  auto second = start("s2");
  at::ones({1});
  scope.reset();
  auto inside = open_scope("inside");
  inside.reset();
  const json two = finish(*second);
  EXPECT_EQ(by_name(one)["across"].size(), 1u);
  EXPECT_EQ(by_name(two)["across"].size(), 0u);
  EXPECT_EQ(by_name(two)["inside"].size(), 1u);
  EXPECT_EQ(by_name(two)["aten::ones"].size(), 1u);
  EXPECT_EQ(result_["dropped"], json::object());
}

TEST_F(StreamTest, ManyThreadsThatComeAndGo) {
  const auto recorder = start();
  const at::ThreadLocalState state;
  constexpr int kThreads = 4, kRounds = 5, kOps = 200;
  for (int round = 0; round < kRounds; ++round) {
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&state] {
        const at::ThreadLocalStateGuard guard(state);
        for (int i = 0; i < kOps; ++i) at::ones({i % 7});
      });
    }
    for (auto& thread : threads) thread.join();
  }
  const json trace = finish(*recorder);
  EXPECT_EQ(by_name(trace)["aten::ones"].size(), size_t{kThreads * kRounds * kOps});
  EXPECT_EQ(overlaps(trace), std::vector<std::string>());
}

TEST_F(StreamTest, ThreadsThatHaveEndedKeepTheirNames) {
  const auto recorder = start();
  const at::ThreadLocalState state;
  int64_t thread = 0;
  std::thread([&] {
    ::pthread_setname_np(::pthread_self(), "short life");
    thread = ::gettid();
    const at::ThreadLocalStateGuard guard(state);
    at::ones({1});
  }).join();
  const json trace = finish(*recorder);
  std::string name;
  for (const auto& event : trace["traceEvents"]) {
    if (event["name"] == "thread_name" && event["tid"] == thread) name = event["args"]["name"];
  }
  EXPECT_EQ(name, "thread " + std::to_string(thread) + " (short life)");
}

TEST_F(StreamTest, EventsWhoseNamesAreLostAreCounted) {
  const auto recorder = start();
  constexpr int kTooMany = 7;
  for (uint32_t i = 0; i < stream::Names::kShared + kTooMany; ++i) {
    at::RecordFunction scope(at::RecordScope::USER_SCOPE);
    scope.before("made up " + std::to_string(i));
  }
  const json trace = finish(*recorder);
  EXPECT_EQ(result_["dropped"], (json{{"names", kTooMany}}));
  EXPECT_EQ(trace["omniTotals"]["dropped"]["names"], kTooMany);
  EXPECT_EQ(by_name(trace)["(one of too many names)"].size(), size_t{kTooMany});
}

TEST_F(StreamTest, StopsWhileOtherThreadsRecord) {
  for (int round = 0; round < 8; ++round) {
    const auto recorder = start("s" + std::to_string(round));
    const at::ThreadLocalState state;
    std::atomic<bool> quit{false};
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&] {
        const at::ThreadLocalStateGuard guard(state);
        while (!quit) {
          const Scope scope("busy");
          at::ones({3}).add(1);
        }
      });
    }
    for (int i = 0; i < 50; ++i) at::ones({2});
    const json trace = finish(*recorder);
    quit = true;
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(overlaps(trace), std::vector<std::string>());
    EXPECT_GE(by_name(trace)["aten::ones"].size(), 50u);
    EXPECT_FALSE(result_["dropped"].contains("buffer"));
  }
}

// In kilobytes.
int64_t resident() {
  std::ifstream file("/proc/self/statm");
  int64_t size = 0, pages = 0;
  file >> size >> pages;
  return pages * ::sysconf(_SC_PAGESIZE) / 1024;
}

TEST_F(StreamTest, AThousandSessionsInTheSameMemory) {
  int64_t settled = 0;
  for (int i = 0; i < 1000; ++i) {
    json config = {{"recorder", "stream"}, {"session", "s"}, {"worker", "w"}, {"record_shapes", true}};
    // Every tenth with files.
    if (i % 10 == 0) {
      config["trace_path"] = (folder_.path() / "s.gz").string();
      config["table_path"] = (folder_.path() / "s.txt").string();
    }
    auto recorder = start_recorder(config);
    recorder->step_begin(i);
    at::ones({1});
    recorder->stop();
    const json result = recorder->finish();
    ASSERT_EQ(result["events"], 4) << i;  // the step, ones, empty, fill_
    for (const auto& file : result["files"]) std::filesystem::remove(file["path"].get<std::string>());
    if (i == 200) settled = resident();
  }
  EXPECT_LT(resident() - settled, 4096) << "kilobytes more than after 200 sessions";
}

TEST_F(StreamTest, DeepAndLong) {
  const auto recorder = start();
  // Deeper than what is kept track of, names longer than any buffer of names.
  std::vector<std::unique_ptr<at::RecordFunction>> open;
  const std::string longest(100000, 'x');
  for (int i = 0; i < 3000; ++i) {
    open.push_back(std::make_unique<at::RecordFunction>(at::RecordScope::FUNCTION));
    open.back()->before(std::string_view(i == 0 ? longest : "deep"));
  }
  while (!open.empty()) open.pop_back();
  const json trace = finish(*recorder);
  auto events = by_name(trace);
  EXPECT_EQ(events[longest].size(), 1u);
  EXPECT_EQ(events["deep"].size() + result_["dropped"].value("buffer", size_t{0}), 2999u);
  EXPECT_EQ(overlaps(trace), std::vector<std::string>());
}

TEST(StreamLogTest, AnEmptyPoolDropsWholeEvents) {
  using stream::Filled;
  using stream::Header;
  using stream::Hub;
  using stream::Kind;
  using stream::ThreadLog;
  const auto session = Hub::get().open();
  at::RecordFunction fn(at::RecordScope::FUNCTION);
  ThreadLog* const log = ThreadLog::current();
  ASSERT_NE(log, nullptr);
  // Nobody reads: the pool fills up. Some ops stay open across its end.
  constexpr int kOpen = 100;
  const size_t enough = stream::kChunkBytes / sizeof(Header) * (stream::kPoolChunks + 2) / 2;
  for (int i = 0; i < kOpen; ++i) log->op_begin(fn, false);
  for (size_t i = 0; i < enough; ++i) {
    log->op_begin(fn, false);
    log->op_end();
  }
  for (int i = 0; i < kOpen; ++i) log->op_end();
  Hub::get().close();
  EXPECT_GT(session->dropped(), 0);

  int64_t begins = 0, ends = 0;
  for (Filled filled; session->next(filled);) {
    const uint32_t used = filled.chunk->used;
    for (uint32_t at = 0; at < used;) {
      Header header;
      std::memcpy(&header, filled.chunk->bytes.data() + at, sizeof header);
      begins += header.kind == Kind::kOpBegin;
      ends += header.kind == Kind::kOpEnd;
      ASSERT_LE(ends, begins);
      at += header.words * 8u;
    }
    filled.chunk.reset();
  }
  EXPECT_EQ(begins, ends) << "an op was recorded in half";
  EXPECT_EQ(begins + session->dropped(), static_cast<int64_t>(enough) + kOpen);
  Hub::get().trim();
}

TEST(StreamClockTest, FollowsTheSystemsClockAndNeverGoesBack) {
  stream::Clock clock;
  int64_t last = 0;
  int64_t worst = 0;
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(700);
  while (std::chrono::steady_clock::now() < until) {
    const int64_t before = c10::getTime();
    const uint64_t counter = c10::getApproximateTime();
    const int64_t after = c10::getTime();
    const int64_t converted = clock.unix_ns(counter);
    EXPECT_GE(converted, last);
    last = converted;
    worst = std::max({worst, before - converted, converted - after});
    clock.follow();
    EXPECT_EQ(clock.unix_ns(counter), converted) << "following changed the past";
  }
  EXPECT_LT(worst, 50000000) << "tens of milliseconds off is not a clock but a bug";
}

}  // namespace
}  // namespace omni
