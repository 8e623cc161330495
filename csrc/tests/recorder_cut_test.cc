// Recordings that end in the middle of what the torch thread does.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <memory>
#include <semaphore>
#include <string>
#include <thread>
#include <vector>

#include "expect_error.h"
#include "profiler/recorder.h"
#include "profiler/scope.h"
#include "profiler_files.h"

namespace omni {
namespace {

using nlohmann::json;

class CutTest : public testing::Test {
 protected:
  std::unique_ptr<Recorder> start(const std::string& session, const json& changes = json::object()) {
    json config = {{"recorder", "stream"},
                   {"session", session},
                   {"worker", "stage-0"},
                   {"trace_path", (folder_.path() / (session + ".gz")).string()},
                   {"table_path", (folder_.path() / (session + ".txt")).string()},
                   {"with_memory", true}};
    config.update(changes);
    return start_recorder(config);
  }

  static std::vector<json> named(const json& trace, const std::string& name) {
    std::vector<json> found;
    for (const auto& event : trace["traceEvents"]) {
      if (event["name"] == name) found.push_back(event);
    }
    return found;
  }

  static json trace_of(const json& result) { return read_trace(result["files"][0]["path"]); }

  // Runs body on another thread, while this one is in the middle of whatever it does.
  template <typename Body>
  static void elsewhere(Body&& body) {
    std::thread(std::forward<Body>(body)).join();
  }

  TemporaryFolder folder_;
};

TEST_F(CutTest, FilesAreCompleteWhileTheStepStillRuns) {
  const auto recorder = start("s1");
  recorder->step_begin(0);
  at::ones({1});
  recorder->step_end();
  recorder->step_begin(1);
  json result;
  {
    const Scope module("thinker.layers.0");
    at::zeros({2});
    at::RecordFunction op(at::RecordScope::FUNCTION);
    op.before("an_op_that_takes_long");
    elsewhere([&] {
      recorder->cut();
      result = recorder->finish();
    });
    at::empty({3});
  }
  at::full({4}, 1);
  recorder->stop();
  at::full({5}, 1);

  EXPECT_EQ(result["steps"], 1);
  EXPECT_EQ(result["dropped"], json::object());
  const json trace = trace_of(result);
  EXPECT_EQ(named(trace, "ProfilerStep#0").size(), 1u);
  EXPECT_EQ(named(trace, "ProfilerStep#1").size(), 0u) << "half a step is none";
  EXPECT_EQ(named(trace, "cut ProfilerStep#1").size(), 1u);
  EXPECT_EQ(named(trace, "thinker.layers.0").size(), 1u);
  EXPECT_EQ(named(trace, "an_op_that_takes_long").size(), 1u);
  EXPECT_EQ(named(trace, "aten::zeros").size(), 1u);
  EXPECT_EQ(named(trace, "aten::full").size(), 0u) << "it began after the cut";
  // Called by ones and by zeros; the third was after the cut.
  EXPECT_EQ(named(trace, "aten::empty").size(), 2u);
  EXPECT_EQ(overlaps(trace), std::vector<std::string>());
  const std::string table = read_text(result["files"][1]["path"]);
  EXPECT_NE(table.find(" ProfilerStep* "), std::string::npos) << table;
  EXPECT_NE(table.find(" cut ProfilerStep "), std::string::npos) << table;
  EXPECT_EQ(table.find("aten::full"), std::string::npos) << table;
}

TEST_F(CutTest, ALoneStepThatIsCutIsNoStep) {
  const auto recorder = start("s1");
  recorder->step_begin(7);
  elsewhere([&] { recorder->cut(); });
  recorder->stop();
  const json result = recorder->finish();
  EXPECT_EQ(result["steps"], 0);
  EXPECT_EQ(named(trace_of(result), "cut ProfilerStep#7").size(), 1u);
  EXPECT_EQ(read_text(result["files"][1]["path"]).find("ProfilerStep*"), std::string::npos);
}

TEST_F(CutTest, AnAnnotationOfTheCallerEndsThere) {
  const auto recorder = start("s1");
  recorder->scope_begin("stage.wait");
  elsewhere([&] { recorder->cut(); });
  EXPECT_THROW(recorder->scope_end(), Error);
  recorder->stop();
  EXPECT_EQ(named(trace_of(recorder->finish()), "stage.wait").size(), 1u);
}

TEST_F(CutTest, OrderOfCalls) {
  const auto recorder = start("s1");
  recorder->step_begin(0);
  recorder->cut();
  expect_error([&] { recorder->cut(); }, OMNI_FAILED_PRECONDITION, {"cut: the recorder does not record"});
  expect_error([&] { recorder->step_end(); }, OMNI_FAILED_PRECONDITION, {"does not record"});
  expect_error([&] { recorder->step_begin(1); }, OMNI_FAILED_PRECONDITION, {"does not record"});
  expect_error([&] { start("s2"); }, OMNI_FAILED_PRECONDITION, {"another recorder"});
  recorder->finish();
  EXPECT_THROW(recorder->finish(), Error);
  recorder->stop();
  EXPECT_THROW(recorder->stop(), Error);
  start("s3")->stop();
}

TEST_F(CutTest, StopMayComeBeforeFinish) {
  const auto recorder = start("s1");
  at::ones({1});
  elsewhere([&] { recorder->cut(); });
  recorder->stop();
  EXPECT_EQ(named(trace_of(recorder->finish()), "aten::ones").size(), 1u);
}

TEST_F(CutTest, ARecorderThatEndsOnItsThreadAloneGoesOn) {
  const auto recorder = start("s1", {{"recorder", "kineto"}, {"with_memory", false}});
  recorder->step_begin(0);
  elsewhere(
      [&] { expect_error([&] { recorder->cut(); }, OMNI_UNIMPLEMENTED, {"recorder kineto", "call stop"}); });
  at::ones({1});
  recorder->step_end();
  recorder->stop();
  const json result = recorder->finish();
  EXPECT_EQ(result["steps"], 1);
  EXPECT_EQ(named(trace_of(result), "aten::ones").size(), 1u);
}

TEST_F(CutTest, FreedAfterACutWithoutStopLeavesNothingThatRecords) {
  {
    const auto recorder = start("s1");
    recorder->cut();
  }  // against the rules, but no disaster
  const auto next = start("s2", {{"with_memory", false}});
  at::ones({1});
  next->stop();
  EXPECT_EQ(named(trace_of(next->finish()), "aten::ones").size(), 1u);
}

// In kilobytes.
int64_t resident() {
  std::ifstream file("/proc/self/statm");
  int64_t size = 0, pages = 0;
  file >> size >> pages;
  return pages * ::sysconf(_SC_PAGESIZE) / 1024;
}

// Another thread ends every one of them wherever the torch thread happens to be.
TEST_F(CutTest, AThousandSessionsThatAreCut) {
  std::atomic<Recorder*> recording{nullptr};
  std::binary_semaphore begun{0};
  json result;
  std::atomic<bool> quit{false};
  std::thread other([&] {
    for (begun.acquire(); !quit; begun.acquire()) {
      Recorder* const recorder = recording;
      recorder->cut();
      result = recorder->finish();
      recording = nullptr;
    }
  });
  // However late the other thread comes, no session is longer than the first: memory stays as large as the largest one.
  constexpr int kLongest = 1000;
  const auto busy = [] {
    const Scope scope("busy");
    at::ones({2}).add(1);
  };
  int64_t settled = 0;
  for (int i = 0; i < 1000; ++i) {
    json changes = {{"record_shapes", i % 3 == 0}, {"with_memory", i % 2 == 0}};
    const bool files = i % 20 == 0;
    if (!files) changes.update({{"trace_path", ""}, {"table_path", ""}});
    const auto recorder = start("s", changes);
    recorder->step_begin(i);
    for (int op = 0; op < i % 50; ++op) at::ones({op});
    int ops = 0;
    for (; i == 0 && ops < kLongest; ++ops) busy();
    recording = recorder.get();
    begun.release();
    for (; recording != nullptr; ++ops) {
      if (ops < kLongest) {
        busy();
      } else {
        std::this_thread::yield();
      }
    }
    recorder->stop();
    ASSERT_EQ(result["steps"], 0);
    ASSERT_GE(result["events"], 1 + 3 * (i % 50));
    ASSERT_EQ(result["dropped"], json::object());
    if (files) {
      const json trace = trace_of(result);
      ASSERT_EQ(overlaps(trace), std::vector<std::string>());
      ASSERT_EQ(named(trace, "cut ProfilerStep#" + std::to_string(i)).size(), 1u);
      for (const auto& file : result["files"]) std::filesystem::remove(file["path"].get<std::string>());
    }
    if (i == 200) settled = resident();
  }
  quit = true;
  begun.release();
  other.join();
  EXPECT_LT(resident() - settled, 4096) << "kilobytes more than after 200 sessions";
}

TEST_F(CutTest, ARingIsDumpedWhileAStepRuns) {
  const auto ring =
      start("ring", {{"ring_seconds", 60}, {"trace_path", ""}, {"table_path", ""}, {"with_memory", false}});
  ring->step_begin(0);
  ring->step_end();
  ring->step_begin(1);
  at::ones({1});
  json result;
  elsewhere([&] {
    result = ring->dump({{"session", "s1"}, {"trace_path", (folder_.path() / "s1.gz").string()}})->finish();
  });
  at::zeros({1});
  ring->step_end();
  EXPECT_EQ(result["steps"], 1);
  const json first = trace_of(result);
  EXPECT_EQ(named(first, "ProfilerStep#0").size(), 1u);
  EXPECT_EQ(named(first, "cut ProfilerStep#1").size(), 1u);
  EXPECT_EQ(named(first, "aten::ones").size(), 1u);
  EXPECT_EQ(named(first, "aten::zeros").size(), 0u);
  // The ring has gone on, and now has the step as a whole.
  const json second = trace_of(
      ring->dump({{"session", "s2"}, {"trace_path", (folder_.path() / "s2.gz").string()}})->finish());
  EXPECT_EQ(named(second, "ProfilerStep#1").size(), 1u);
  EXPECT_EQ(named(second, "cut ProfilerStep#1").size(), 0u);
  EXPECT_EQ(named(second, "aten::zeros").size(), 1u);
  ring->stop();
}

}  // namespace
}  // namespace omni
