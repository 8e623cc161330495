// The rules that every recorder obeys, run on each of them, and what its files hold.
#include "profiler/recorder.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <set>
#include <string>
#include <thread>

#include "profiler/scope.h"
#include "profiler_files.h"
#include "status.h"

namespace omni {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const json kDefault = json::object();

class RecorderTest : public testing::TestWithParam<const char*> {
 protected:
  json config(const json& changes = kDefault) {
    json c = {{"recorder", GetParam()}, {"session", "s1"},  {"worker", "stage-2"},  {"stage", 2}, {"rank", 1},
              {"world_size", 3},        {"use_gzip", true}, {"activities", {"CPU"}}};
    c["trace_path"] = (folder_.path() / "stage-2_s1.7.pt.trace.json.gz").string();
    c["table_path"] = (folder_.path() / "profiler_out_1.txt").string();
    c.update(changes);
    return c;
  }

  // A few ops in two modules, in each of steps steps.
  static void run_ops(Recorder& recorder, int steps) {
    const at::Tensor a = at::ones({8, 8});
    for (int i = 0; i < steps; ++i) {
      recorder.step_begin(i);
      {
        const Scope outer("thinker.layers.0");
        const Scope inner("thinker.layers.0.mlp");
        at::softmax(at::mm(a, a), -1).add_(2.5);
      }
      recorder.step_end();
    }
  }

  json record(const json& changes, int steps) {
    auto recorder = start_recorder(config(changes));
    run_ops(*recorder, steps);
    recorder->stop();
    return recorder->finish();
  }

  static std::vector<json> named(const json& trace, const std::string& name) {
    std::vector<json> found;
    for (const auto& event : trace["traceEvents"]) {
      if (event["name"] == name) found.push_back(event);
    }
    return found;
  }

  TemporaryFolder folder_;
};

TEST_P(RecorderTest, WritesATraceAndATableAndSaysWhatTheyAre) {
  const json result = record(kDefault, 3);
  ASSERT_EQ(result["files"].size(), 2u) << result;
  EXPECT_EQ(result["files"][0]["kind"], "trace");
  EXPECT_EQ(result["files"][1]["kind"], "table");
  for (const auto& file : result["files"]) {
    const std::string path = file["path"];
    EXPECT_EQ(file["bytes"].get<uintmax_t>(), fs::file_size(path)) << path;
    EXPECT_FALSE(fs::exists(path + ".tmp"));
  }
  EXPECT_EQ(result["steps"], 3);
  EXPECT_EQ(result["dropped"], json::object());
  EXPECT_GE(result["write_ms"].get<double>(), 0);

  const json trace = read_trace(result["files"][0]["path"]);
  int64_t events = 0;
  for (const auto& event : trace["traceEvents"]) {
    const std::string category = event.value("cat", "");
    events += category == "cpu_op" || category == "user_annotation";
  }
  EXPECT_EQ(result["events"], events);
}

TEST_P(RecorderTest, AnnotatesEachStepOnce) {
  const json trace = read_trace(record(kDefault, 3)["files"][0]["path"]);
  for (const char* name : {"ProfilerStep#0", "ProfilerStep#1", "ProfilerStep#2"}) {
    const auto steps = named(trace, name);
    ASSERT_EQ(steps.size(), 1u) << name;
    EXPECT_EQ(steps[0]["cat"], "user_annotation");
  }
  EXPECT_TRUE(named(trace, "ProfilerStep#3").empty());
  EXPECT_EQ(named(trace, "thinker.layers.0.mlp").size(), 3u);
}

TEST_P(RecorderTest, HeaderNamesTheWorker) {
  const std::string text =
      read_text(record({{"metadata", {{"note", "\xF0\x9F\x98\x80"}}}}, 1)["files"][0]["path"]);
  // HTA looks for this very text.
  EXPECT_NE(text.find("\"rank\": 1"), std::string::npos);
  const json trace = json::parse(text);
  EXPECT_EQ(trace["schemaVersion"], 1);
  EXPECT_EQ(trace["distributedInfo"]["rank"], 1);
  EXPECT_EQ(trace["distributedInfo"]["world_size"], 3);
  EXPECT_EQ(trace["omni"]["session"], "s1");
  EXPECT_EQ(trace["omni"]["worker"], "stage-2");
  EXPECT_EQ(trace["omni"]["metadata"]["note"], "\xF0\x9F\x98\x80");
  EXPECT_GT(trace["omni"]["start_ns"], 1600000000000000000);
  EXPECT_EQ(trace["omniTotals"]["steps"], 1);
  EXPECT_EQ(trace["displayTimeUnit"], "ms");
  EXPECT_TRUE(trace["baseTimeNanoseconds"].is_number_integer());
}

// Nothing that the header of torch.profiler's own file says is missing from ours.
TEST_P(RecorderTest, HeaderHasTheMembersOfKinetos) {
  const json theirs = json::parse(read_bytes(OMNI_SOURCE_DIR "/csrc/tests/testdata/kineto_header.json"));
  const json ours = read_trace(
      record({{"record_shapes", true}, {"with_memory", true}, {"with_stack", true}, {"with_flops", true}},
             1)["files"][0]["path"]);
  const std::set<std::string> own_values = {"baseTimeNanoseconds", "host_name", "traceName", "trace_id"};
  for (const auto& [key, value] : theirs.items()) {
    ASSERT_TRUE(ours.contains(key)) << key;
    EXPECT_EQ(ours[key].type(), value.type()) << key;
    if (!own_values.contains(key)) {
      EXPECT_EQ(ours[key], value) << key;
    }
  }
  const json bare = read_trace(record(
      {{"trace_path", (folder_.path() / "bare.gz").string()}, {"table_path", ""}}, 1)["files"][0]["path"]);
  for (const char* key : {"with_stack", "with_modules", "with_flops", "record_shapes", "profile_memory"}) {
    EXPECT_FALSE(bare.contains(key)) << key;
  }
}

TEST_P(RecorderTest, EveryTraceHasItsOwnId) {
  std::set<std::string> ids;
  for (int i = 0; i < 3; ++i) {
    const std::string path = (folder_.path() / (std::to_string(i) + ".gz")).string();
    ids.insert(
        read_trace(record({{"trace_path", path}, {"table_path", ""}}, 1)["files"][0]["path"])["trace_id"]);
  }
  EXPECT_EQ(ids.size(), 3u) << "the same session and worker of several runs";
  for (const std::string& id : ids) {
    EXPECT_EQ(id.size(), 32u) << id;
    EXPECT_EQ(id.find_first_not_of("0123456789ABCDEF"), std::string::npos) << id;
  }
}

TEST_P(RecorderTest, RecordsShapesOnlyWhenAsked) {
  const json with = read_trace(record({{"record_shapes", true}}, 1)["files"][0]["path"]);
  const auto mm = named(with, "aten::mm");
  ASSERT_EQ(mm.size(), 1u);
  EXPECT_EQ(mm[0]["args"]["Input Dims"], json::parse("[[8,8],[8,8]]"));
  EXPECT_EQ(mm[0]["args"]["Input type"], json::parse(R"(["float","float"])"));
  EXPECT_EQ(mm[0]["args"]["Input Strides"], json::parse("[[8,1],[8,1]]"));
  const auto softmax = named(with, "aten::softmax");
  ASSERT_EQ(softmax.size(), 1u);
  EXPECT_EQ(softmax[0]["args"]["Concrete Inputs"], json::parse(R"(["","-1",""])"));

  fs::remove_all(folder_.path());
  fs::create_directory(folder_.path());
  const json without = read_trace(record(kDefault, 1)["files"][0]["path"]);
  EXPECT_FALSE(named(without, "aten::mm")[0]["args"].contains("Input Dims"));
}

TEST_P(RecorderTest, StackIsThePathOfTheModule) {
  const json trace = read_trace(record({{"with_stack", true}}, 1)["files"][0]["path"]);
  EXPECT_EQ(named(trace, "aten::mm")[0]["args"]["Module Hierarchy"], "thinker.layers.0.mlp");
  EXPECT_EQ(named(trace, "aten::_softmax")[0]["args"]["Module Hierarchy"], "thinker.layers.0.mlp");
  EXPECT_FALSE(named(trace, "ProfilerStep#0")[0]["args"].contains("Module Hierarchy"));
}

TEST_P(RecorderTest, AnnotationsSayWhereTheyStand) {
  const json trace = read_trace(record({{"with_stack", true}}, 1)["files"][0]["path"]);
  const std::string inner = named(trace, "thinker.layers.0.mlp")[0]["args"]["Call stack"];
  const std::string outer = named(trace, "thinker.layers.0")[0]["args"]["Call stack"];
  EXPECT_TRUE(outer.starts_with("csrc/tests/recorder_test.cc(")) << outer;
  EXPECT_NE(outer.find("run_ops"), std::string::npos) << outer;
  EXPECT_TRUE(inner.ends_with(";" + outer)) << inner;
  EXPECT_FALSE(named(trace, "aten::mm")[0]["args"].contains("Call stack"));
}

TEST_P(RecorderTest, ModulesAloneAreEnough) {
  const json result = record({{"detail", "modules"}}, 2);
  const json trace = read_trace(result["files"][0]["path"]);
  EXPECT_EQ(result["events"], 2 * 3) << "a step and two modules, twice";
  EXPECT_EQ(named(trace, "ProfilerStep#1").size(), 1u);
  EXPECT_EQ(named(trace, "thinker.layers.0.mlp").size(), 2u);
  EXPECT_TRUE(named(trace, "aten::mm").empty());
}

TEST_P(RecorderTest, MemoryGoesToTraceAndTable) {
  const json result = record({{"with_memory", true}}, 1);
  const auto allocations = named(read_trace(result["files"][0]["path"]), "[memory]");
  ASSERT_FALSE(allocations.empty());
  EXPECT_EQ(allocations[0]["ph"], "i");
  EXPECT_EQ(allocations[0]["args"]["Device Type"], 0);
  const auto counters = named(read_trace(result["files"][0]["path"]), "CPU memory (stage-2)");
  ASSERT_FALSE(counters.empty());
  EXPECT_EQ(counters.back()["ph"], "C");
  EXPECT_EQ(counters.back()["args"]["allocated"], allocations.back()["args"]["Total Allocated"]);
  const std::string table = read_text(result["files"][1]["path"]);
  EXPECT_NE(table.find("Self CPU Mem"), std::string::npos);
  EXPECT_NE(table.find("256 B"), std::string::npos) << table;  // an 8x8 float matrix
}

TEST_P(RecorderTest, FlopsGoToTheTable) {
  const std::string table = read_text(record({{"with_flops", true}}, 2)["files"][1]["path"]);
  EXPECT_NE(table.find("Total KFLOPs"), std::string::npos) << table;
  EXPECT_NE(table.find("2.048"), std::string::npos) << table;  // two multiplications of 8x8 matrices
}

TEST_P(RecorderTest, TableSaysWhoseItIs) {
  const std::string table = read_text(record({{"base_time_ns", 7}}, 2)["files"][1]["path"]);
  EXPECT_EQ(table.substr(0, table.find(':')), "Stage 2 (stage-2), rank 1 of 3, session s1.7");
  EXPECT_NE(table.find(" ProfilerStep*  "), std::string::npos) << table;
  EXPECT_NE(table.find("\nSelf CPU time total: "), std::string::npos);
}

TEST_P(RecorderTest, SlicesOfAThreadNest) {
  const json trace = read_trace(record({{"with_memory", true}}, 5)["files"][0]["path"]);
  EXPECT_EQ(overlaps(trace), std::vector<std::string>());
}

TEST_P(RecorderTest, KeepsOddNames) {
  auto recorder = start_recorder(config());
  const std::vector<std::pair<std::string, std::string>> names = {
      {"quote \" backslash \\", "quote \" backslash \\"},
      {"control \x01 tab \t newline \n", "control \x01 tab \t newline \n"},
      {"caf\xC3\xA9 \xF0\x9F\x98\x80", "caf\xC3\xA9 \xF0\x9F\x98\x80"},
      {"not UTF-8 \xFF\xC0\xAF end", "not UTF-8 \xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD end"},
      {"surrogate \xED\xA0\x80", "surrogate \xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
  };
  for (const auto& [name, written] : names) const Scope scope(name);
  recorder->stop();
  const std::string text = read_text(recorder->finish()["files"][0]["path"]);
  EXPECT_EQ(text.find("\\ud"), std::string::npos);
  const json trace = json::parse(text);
  for (const auto& [name, written] : names) EXPECT_EQ(named(trace, written).size(), 1u) << written;
}

TEST_P(RecorderTest, AnnotatesScopesBetweenSteps) {
  auto recorder = start_recorder(config());
  for (int i = 0; i < 2; ++i) {
    recorder->scope_begin("stage.wait");
    EXPECT_THROW(recorder->scope_begin("again"), Error);
    recorder->scope_end();
    EXPECT_THROW(recorder->scope_end(), Error);
    run_ops(*recorder, 1);
  }
  recorder->scope_begin("open at stop");
  recorder->stop();
  const json trace = read_trace(recorder->finish()["files"][0]["path"]);
  EXPECT_EQ(named(trace, "stage.wait").size(), 2u);
  EXPECT_EQ(named(trace, "stage.wait")[0]["cat"], "user_annotation");
  EXPECT_EQ(named(trace, "open at stop").size(), 1u);
}

TEST_P(RecorderTest, WaitingIsNoOperatorOfTheTable) {
  auto recorder = start_recorder(config());
  recorder->scope_begin("stage.wait");
  recorder->scope_end();
  run_ops(*recorder, 1);
  recorder->scope_begin("other");
  recorder->scope_end();
  recorder->stop();
  const std::string table = read_text(recorder->finish()["files"][1]["path"]);
  EXPECT_EQ(table.find("stage.wait"), std::string::npos) << table;
  EXPECT_NE(table.find(" other "), std::string::npos) << "any other annotation is a row";
}

TEST_P(RecorderTest, StatusFollowsTheRecording) {
  auto recorder = start_recorder(config({{"record_shapes", true}}));
  run_ops(*recorder, 50);
  const RecorderStatus running = recorder->status();
  EXPECT_GE(running.events, 50 * 5);
  EXPECT_GT(running.overhead_ns, 0);
  EXPECT_EQ(running.json()["full"], "");
  EXPECT_EQ(running.json()["dropped"], json::object());
  recorder->stop();
  EXPECT_EQ(recorder->status().events, running.events);
  const json result = recorder->finish();
  const RecorderStatus done = recorder->status();
  EXPECT_EQ(done.events, result["events"]);
  EXPECT_EQ(done.trace_bytes, result["files"][0]["bytes"]);
  EXPECT_GT(result["wall_ns"], 0);
  EXPECT_GT(result["overhead_ns"], 0);
  const json totals = read_trace(result["files"][0]["path"])["omniTotals"];
  EXPECT_EQ(totals["overhead_ns"], result["overhead_ns"]);
  EXPECT_EQ(totals["wall_ns"], result["wall_ns"]);
}

TEST_P(RecorderTest, StatusMayBeAskedBesideEverything) {
  auto recorder = start_recorder(config());
  std::atomic<bool> done{false};
  std::thread other([&] {
    while (!done) recorder->status();
  });
  run_ops(*recorder, 200);
  recorder->stop();
  recorder->finish();
  done = true;
  other.join();
}

TEST_P(RecorderTest, EndsAtMaxEvents) {
  auto recorder = start_recorder(config({{"max_events", 100}}));
  run_ops(*recorder, 50);
  const json status = recorder->status().json();
  EXPECT_EQ(status["full"], "max_events");
  EXPECT_EQ(status["events"], 100);
  EXPECT_GT(status["dropped"]["budget"], 0);
  recorder->stop();
  const json result = recorder->finish();
  EXPECT_EQ(result["events"], 100);
  const json trace = read_trace(result["files"][0]["path"]);
  int64_t events = 0;
  for (const auto& event : trace["traceEvents"]) {
    const std::string category = event.value("cat", "");
    events += category == "cpu_op" || category == "user_annotation";
  }
  EXPECT_EQ(events, 100);
  EXPECT_EQ(named(trace, "Recording ended early: max_events").size(), 1u);
  EXPECT_EQ(overlaps(trace), std::vector<std::string>());
  EXPECT_EQ(trace["omniTotals"]["full"], "max_events");
  EXPECT_EQ(recorder->status().json()["dropped"], result["dropped"]);
}

TEST_P(RecorderTest, EndsAtMaxTraceBytes) {
  for (const bool gzip : {true, false}) {
    SCOPED_TRACE(gzip);
    const int64_t limit = gzip ? 100000 : 400000;
    const json changes = {{"max_trace_bytes", limit},
                          {"use_gzip", gzip},
                          {"table_path", ""},
                          {"trace_path", (folder_.path() / (gzip ? "t.json.gz" : "t.json")).string()}};
    auto recorder = start_recorder(config(changes));
    run_ops(*recorder, 600);
    recorder->stop();
    const json result = recorder->finish();
    EXPECT_EQ(recorder->status().json()["full"], "max_trace_mb");
    EXPECT_LE(result["files"][0]["bytes"], limit);
    EXPECT_GE(result["files"][0]["bytes"], limit / 4);
    EXPECT_GT(result["dropped"]["budget"], 0);
    const json trace = read_trace(result["files"][0]["path"]);
    EXPECT_EQ(overlaps(trace), std::vector<std::string>());
    EXPECT_EQ(trace["omniTotals"]["events"], result["events"]);
  }
}

TEST_P(RecorderTest, OnlyARingCanBeDumped) {
  auto recorder = start_recorder(config());
  EXPECT_THROW(recorder->dump({{"session", "s2"}}), Error);
  recorder->stop();
}

TEST_P(RecorderTest, CallSitesOfTheCallersProgram) {
  for (const bool with_stack : {true, false}) {
    auto recorder = start_recorder(config({{"with_stack", with_stack}}));
    recorder->call_site("ProfilerStep", "pipeline/worker/steps.go(133): step");
    recorder->call_site("stage.wait", "pipeline/worker/loop.go(190): idle");
    recorder->scope_begin("stage.wait");
    recorder->scope_end();
    run_ops(*recorder, 1);
    recorder->stop();
    EXPECT_THROW(recorder->call_site("stage.wait", "x"), Error);
    const json result = recorder->finish();
    const json trace = read_trace(result["files"][0]["path"]);
    for (const auto& file : result["files"]) fs::remove(file["path"].get<std::string>());
    const json step = named(trace, "ProfilerStep#0")[0]["args"];
    const json module = named(trace, "thinker.layers.0.mlp")[0]["args"];
    ASSERT_EQ(step.contains("Call stack"), with_stack);
    if (!with_stack) continue;
    EXPECT_EQ(step["Call stack"], "pipeline/worker/steps.go(133): step");
    EXPECT_EQ(named(trace, "stage.wait")[0]["args"]["Call stack"], "pipeline/worker/loop.go(190): idle");
    const std::string stack = module["Call stack"];
    EXPECT_TRUE(stack.starts_with("csrc/tests/recorder_test.cc(")) << stack;
    EXPECT_TRUE(stack.ends_with(";pipeline/worker/steps.go(133): step")) << stack;
    EXPECT_FALSE(step.contains("Module Hierarchy"));
  }
}

TEST(RecorderConfigTest, TheDefaultRecorderIsThatOfTheProfiler) {
  EXPECT_EQ(RecorderConfig::parse({{"session", "s"}, {"worker", "w"}}).recorder, "stream");
}

TEST_P(RecorderTest, ClosesAnOpenStepAtStop) {
  auto recorder = start_recorder(config());
  recorder->step_begin(4);
  recorder->stop();
  const json result = recorder->finish();
  EXPECT_EQ(result["steps"], 1);
  EXPECT_EQ(named(read_trace(result["files"][0]["path"]), "ProfilerStep#4").size(), 1u);
}

TEST_P(RecorderTest, KeepsWhatIsOpenAtStop) {
  auto recorder = start_recorder(config());
  {
    const Scope open("still.open");
    recorder->stop();
  }
  const auto found = named(read_trace(recorder->finish()["files"][0]["path"]), "still.open");
  ASSERT_EQ(found.size(), 1u);
  EXPECT_GE(found[0]["dur"].get<double>(), 0);
}

TEST_P(RecorderTest, FinishesOnAnotherThreadWhileTheNextRecords) {
  auto first = start_recorder(config());
  run_ops(*first, 2);
  first->stop();
  json result;
  std::thread writer([&] { result = first->finish(); });
  auto second = start_recorder(config({{"session", "s2"},
                                       {"trace_path", (folder_.path() / "two.gz").string()},
                                       {"table_path", (folder_.path() / "two.txt").string()}}));
  run_ops(*second, 4);
  writer.join();
  second->stop();
  EXPECT_EQ(result["steps"], 2);
  EXPECT_EQ(named(read_trace(result["files"][0]["path"]), "aten::mm").size(), 2u);
  EXPECT_EQ(named(read_trace(second->finish()["files"][0]["path"]), "aten::mm").size(), 4u);
}

TEST_P(RecorderTest, OnlyOneRecordsAtATime) {
  auto first = start_recorder(config());
  EXPECT_THROW(start_recorder(config({{"session", "s2"}})), Error);
  first->stop();
  const auto second = start_recorder(config({{"trace_path", (folder_.path() / "two.gz").string()}}));
  second->stop();
}

TEST_P(RecorderTest, RefusesCallsOutOfOrder) {
  auto recorder = start_recorder(config());
  EXPECT_THROW(recorder->finish(), Error);
  EXPECT_THROW(recorder->step_end(), Error);
  recorder->step_begin(0);
  EXPECT_THROW(recorder->step_begin(1), Error);
  recorder->stop();
  EXPECT_THROW(recorder->stop(), Error);
  EXPECT_THROW(recorder->step_begin(2), Error);
  recorder->finish();
  EXPECT_THROW(recorder->finish(), Error);
}

TEST_P(RecorderTest, LeavesNothingWhenDroppedUnfinished) {
  {
    auto recorder = start_recorder(config());
    run_ops(*recorder, 1);
    recorder->stop();
  }
  EXPECT_TRUE(fs::is_empty(folder_.path()));
  {
    const auto recorder = start_recorder(config());
  }  // freed while it records: against the rules, but no disaster
  const auto next = start_recorder(config());
  next->stop();
}

TEST_P(RecorderTest, WritesOnlyWhatIsWanted) {
  const json table_only = record({{"trace_path", ""}}, 1);
  ASSERT_EQ(table_only["files"].size(), 1u);
  EXPECT_EQ(table_only["files"][0]["kind"], "table");
  const json trace_only = record({{"table_path", ""},
                                  {"use_gzip", false},
                                  {"trace_path", (folder_.path() / "a.pt.trace.json").string()}},
                                 1);
  ASSERT_EQ(trace_only["files"].size(), 1u);
  const std::string raw = read_text(trace_only["files"][0]["path"]);
  EXPECT_EQ(raw[0], '{');
}

TEST_P(RecorderTest, NeverReplacesAFile) {
  record(kDefault, 1);
  try {
    record(kDefault, 1);
    FAIL() << "the second recording replaced the first's files";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), OMNI_FAILED_PRECONDITION);
    EXPECT_NE(std::string(error.what()).find("stage-2_s1.7.pt.trace.json.gz"), std::string::npos)
        << error.what();
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_.path()), fs::directory_iterator()), 2);
}

TEST_P(RecorderTest, TakesTheReservedNameOfItsTable) {
  const std::string reserved = (folder_.path() / "profiler_out_1.txt.tmp").string();
  std::ofstream(reserved) << "";
  const json result = record(kDefault, 1);
  EXPECT_EQ(result["files"].size(), 2u) << result;
  EXPECT_FALSE(fs::exists(reserved));
}

TEST_P(RecorderTest, ATraceIsWorthAsMuchWithoutItsTable) {
  const std::string table = (folder_.path() / "profiler_out_1.txt").string();
  std::ofstream(table) << "theirs";
  const json result = record(kDefault, 3);
  ASSERT_EQ(result["files"].size(), 1u) << result;
  EXPECT_EQ(result["files"][0]["kind"], "trace");
  EXPECT_EQ(result["steps"], 3);
  EXPECT_GT(result["events"], 3);
  EXPECT_NE(result["table_error"].get<std::string>().find(table), std::string::npos) << result;
  EXPECT_EQ(read_text(table), "theirs");
}

TEST_P(RecorderTest, AFullDiskIsAnErrorAndLeavesTheBeginning) {
  const FileSizeLimit limit(8000);
  const json full = config({{"use_gzip", false}});
  try {
    record({{"use_gzip", false}}, 50);
    FAIL() << "writing beyond the limit succeeded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), OMNI_RESOURCE_EXHAUSTED) << error.what();
    const std::string left =
        full["trace_path"].get<std::string>() + ".tmp, which omni-run profile repair reads";
    EXPECT_NE(std::string(error.what()).find(left), std::string::npos) << error.what();
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_.path()), fs::directory_iterator()), 1);
  EXPECT_EQ(read_bytes(full["trace_path"].get<std::string>() + ".tmp").size(), 8000u);
}

TEST_P(RecorderTest, ADiskThatIsFullAtTheStartIsAnErrorOfTheStart) {
  const FileSizeLimit limit(100);
  EXPECT_THROW(start_recorder(config({{"use_gzip", false}})), Error);
  EXPECT_TRUE(fs::is_empty(folder_.path()));
  const auto other = start_recorder(config({{"trace_path", ""}, {"table_path", ""}}));
  other->stop();
}

INSTANTIATE_TEST_SUITE_P(All, RecorderTest, testing::Values("kineto", "stream"),
                         [](const auto& info) { return std::string(info.param); });

TEST(RecorderConfigTest, KnowsEveryKeyOfTheInterface) {
  const RecorderConfig config = RecorderConfig::parse(json::parse(R"({"recorder":"stream","session":"s3",
      "worker":"stage-1","stage":1,"rank":2,"world_size":4,"trace_path":"t","table_path":"o","base_time_ns":5,"detail":"modules",
      "record_shapes":true,"with_stack":true,"with_flops":true,"with_memory":true,"use_gzip":false,
      "activities":["CPU","CUDA"],"metadata":{"a":1},"max_events":7,"max_trace_bytes":8})"));
  EXPECT_EQ(config.recorder, "stream");
  EXPECT_EQ(config.session, "s3");
  EXPECT_EQ(config.worker, "stage-1");
  EXPECT_EQ(config.stage, 1);
  EXPECT_EQ(config.rank, 2);
  EXPECT_EQ(config.world_size, 4);
  EXPECT_EQ(config.trace_path, "t");
  EXPECT_EQ(config.table_path, "o");
  EXPECT_EQ(config.base_time_ns, 5);
  EXPECT_TRUE(config.record_shapes && config.with_stack && config.with_flops && config.with_memory &&
              config.cuda);
  EXPECT_TRUE(config.modules_only);
  EXPECT_FALSE(config.use_gzip);
  EXPECT_EQ(config.metadata["a"], 1);
  EXPECT_EQ(config.max_events, 7);
  EXPECT_EQ(config.max_trace_bytes, 8);
  EXPECT_EQ(RecorderConfig::parse(
                {{"recorder", "stream"}, {"session", "s"}, {"worker", "w"}, {"ring_seconds", 1.5}})
                .ring_seconds,
            1.5);
}

TEST(RecorderConfigTest, RejectsWhatItDoesNotKnow) {
  const struct {
    const char* name;
    json config;
    const char* message;
  } cases[] = {
      {"not an object", json::array(), "expected a JSON object"},
      {"an unknown key", {{"session", "s"}, {"worker", "w"}, {"colour", 1}}, "colour"},
      {"an unknown recorder", {{"recorder", "tape"}, {"session", "s"}, {"worker", "w"}}, "tape"},
      {"no session", {{"worker", "w"}}, "session"},
      {"a rank outside the world",
       {{"session", "s"}, {"worker", "w"}, {"rank", 3}, {"world_size", 3}},
       "rank"},
      {"an unknown detail", {{"session", "s"}, {"worker", "w"}, {"detail", "lines"}}, "lines"},
      {"a negative limit", {{"session", "s"}, {"worker", "w"}, {"max_events", -1}}, "max_events"},
      {"a ring of Kineto's",
       {{"session", "s"}, {"worker", "w"}, {"recorder", "kineto"}, {"ring_seconds", 1}},
       "only the recorder stream"},
      {"a ring with files",
       {{"session", "s"}, {"worker", "w"}, {"recorder", "stream"}, {"ring_seconds", 1}, {"trace_path", "t"}},
       "leave trace_path"},
      {"an unknown activity", {{"session", "s"}, {"worker", "w"}, {"activities", {"XPU"}}}, "XPU"},
  };
  for (const auto& test : cases) {
    SCOPED_TRACE(test.name);
    try {
      RecorderConfig::parse(test.config);
      ADD_FAILURE() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), OMNI_INVALID_ARGUMENT);
      EXPECT_NE(std::string(error.what()).find(test.message), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace omni
