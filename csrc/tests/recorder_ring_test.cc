// The flight recorder: a ring that keeps the last seconds, and its dumps.
#include <ATen/ATen.h>
#include <ATen/ThreadLocalState.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "profiler/recorder.h"
#include "profiler/scope.h"
#include "profiler/stream_pool.h"
#include "profiler_files.h"
#include "status.h"

namespace omni {
namespace {

using nlohmann::json;

class RingTest : public testing::Test {
 protected:
  static std::unique_ptr<Recorder> start(double seconds) {
    return start_recorder({{"recorder", "stream"},
                           {"session", "ring"},
                           {"worker", "stage-0"},
                           {"ring_seconds", seconds},
                           {"record_shapes", true}});
  }

  json dump_config(const std::string& session) const {
    return {{"session", session},
            {"trace_path", (folder_.path() / (session + ".gz")).string()},
            {"table_path", (folder_.path() / (session + ".txt")).string()},
            {"metadata", {{"trigger", "slow"}}}};
  }

  static size_t count(const json& trace, const std::string& name) {
    size_t found = 0;
    for (const auto& event : trace["traceEvents"]) found += event["name"] == name;
    return found;
  }

  static json trace_of(const json& result) { return read_trace(result["files"][0]["path"]); }

  // Waits until so much time has passed by the clock that the recorder reads.
  static void pass(std::chrono::milliseconds time) { std::this_thread::sleep_for(time); }

  TemporaryFolder folder_;
};

TEST_F(RingTest, ADumpIsASessionAndTheRingGoesOn) {
  const auto ring = start(60);
  ring->step_begin(0);
  at::ones({2});
  ring->step_end();
  const auto first = ring->dump(dump_config("s1"));
  ring->step_begin(1);
  at::zeros({3});
  ring->step_end();
  const auto second = ring->dump(dump_config("s2"));
  EXPECT_THROW(first->stop(), Error);
  EXPECT_THROW(first->step_begin(0), Error);

  const json one = first->finish();
  EXPECT_EQ(one["steps"], 1);
  EXPECT_EQ(one["dropped"], json::object());
  EXPECT_EQ(one["events"], 4);  // the step, ones, empty, fill_
  EXPECT_GT(one["wall_ns"], 0);
  EXPECT_GT(one["overhead_ns"], 0);
  const json trace = trace_of(one);
  EXPECT_EQ(trace["omni"]["session"], "s1");
  EXPECT_EQ(trace["omni"]["metadata"]["trigger"], "slow");
  EXPECT_EQ(count(trace, "aten::ones"), 1u);
  EXPECT_EQ(count(trace, "aten::zeros"), 0u);
  EXPECT_EQ(first->status().events, 4);

  const json two = trace_of(second->finish());
  EXPECT_EQ(count(two, "ProfilerStep#0"), 1u) << "the ring keeps what it has given to a dump";
  EXPECT_EQ(count(two, "ProfilerStep#1"), 1u);
  EXPECT_NE(read_text(folder_.path() / "s2.txt").find("aten::zeros"), std::string::npos);

  EXPECT_GT(ring->status().events, 4);
  ring->stop();
  EXPECT_EQ(ring->finish()["files"], json::array());
}

TEST_F(RingTest, ForgetsWhatIsOlderThanItsSpan) {
  const auto ring = start(0.2);
  at::ones({1});
  pass(std::chrono::milliseconds(400));
  at::zeros({1});
  const auto dump = ring->dump(dump_config("s1"));
  const json trace = trace_of(dump->finish());
  EXPECT_EQ(count(trace, "aten::ones"), 0u);
  EXPECT_EQ(count(trace, "aten::zeros"), 1u);
  EXPECT_EQ(read_text(folder_.path() / "s1.txt").find("aten::ones"), std::string::npos);
  ring->stop();
}

TEST_F(RingTest, KeepsWhatBeganBeforeItsSpanAndEndedInIt) {
  const auto ring = start(0.2);
  {
    const Scope scope("long");
    at::ones({1});
    pass(std::chrono::milliseconds(400));
    at::zeros({1});
  }
  const auto dump = ring->dump(dump_config("s1"));
  const json result = dump->finish();
  const json trace = trace_of(result);
  EXPECT_EQ(count(trace, "aten::ones"), 0u);
  EXPECT_EQ(count(trace, "aten::zeros"), 1u);
  EXPECT_EQ(count(trace, "long"), 1u);
  EXPECT_EQ(overlaps(trace), std::vector<std::string>());
  EXPECT_NE(read_text(folder_.path() / "s1.txt").find(" long "), std::string::npos);
  ring->stop();
}

// More than the pool holds: the oldest make room, nothing is dropped, and what is left is whole.
TEST_F(RingTest, GoesRoundInItsPool) {
  const at::Tensor x = at::ones({2, 3});
  const auto ring = start(3600);
  const size_t rounds = stream::kChunkBytes * stream::kPoolChunks / 64 * 5 / 4;
  for (size_t i = 0; i < rounds; ++i) x.is_same_size(x);
  EXPECT_EQ(ring->status().events, static_cast<int64_t>(rounds));
  EXPECT_EQ(ring->status().json()["dropped"], json::object());
  auto config = dump_config("s1");
  config.erase("trace_path");
  const auto dump = ring->dump(config);
  // The ring needs chunks while the dump reads the same ones.
  json result;
  std::thread writer([&] { result = dump->finish(); });
  for (size_t i = 0; i < rounds / 4; ++i) x.is_same_size(x);
  writer.join();
  EXPECT_EQ(result["dropped"], json::object());
  EXPECT_GT(result["events"].get<size_t>(), rounds / 4);
  EXPECT_LT(result["events"].get<size_t>(), rounds);
  ring->stop();
}

TEST_F(RingTest, DumpsWhileThreadsRecordAndComeAndGo) {
  const auto ring = start(60);
  const at::ThreadLocalState state;
  for (int i = 0; i < 4; ++i) {
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&] {
        const at::ThreadLocalStateGuard guard(state);
        for (int op = 0; op < 500; ++op) {
          const Scope scope("busy");
          at::ones({3}).add(1);
        }
      });
    }
    std::thread([&] {
      const at::ThreadLocalStateGuard guard(state);
      at::zeros({1});
    }).join();
    for (int op = 0; op < 50; ++op) at::ones({2});
    const json result = ring->dump(dump_config("s" + std::to_string(i)))->finish();
    const json trace = trace_of(result);
    EXPECT_EQ(count(trace, "aten::zeros"), static_cast<size_t>(i) + 1);
    EXPECT_EQ(overlaps(trace), std::vector<std::string>());
    EXPECT_EQ(result["dropped"], json::object());
    for (auto& thread : threads) thread.join();
  }
  ring->stop();
}

TEST_F(RingTest, RefusesWhatADumpCannotBe) {
  const auto ring = start(1);
  EXPECT_THROW(ring->dump({{"session", "s"}, {"recorder", "kineto"}}), Error);
  EXPECT_THROW(ring->dump(json::object()), Error);
  EXPECT_THROW(ring->dump({{"session", "s"}, {"trace_path", "/nowhere/at/all.gz"}}), Error);
  {
    const auto abandoned = ring->dump(dump_config("s1"));
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
  ring->stop();
  EXPECT_THROW(ring->dump(dump_config("s2")), Error);
}

}  // namespace
}  // namespace omni
