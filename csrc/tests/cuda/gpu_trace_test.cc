// Traces of GPU work, read back.
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "cuda/activity_writer.h"
#include "cuda/synthetic_gpu.h"
#include "profiler_files.h"

namespace omni::cuda {
namespace {

using nlohmann::json;

constexpr int64_t kSteps = 3;

// The X events of a category.
std::vector<json> of_category(const json& trace, const std::string& category) {
  std::vector<json> found;
  for (const json& event : trace.at("traceEvents"))
    if (event.at("ph") == "X" && event.value("cat", "") == category) found.push_back(event);
  return found;
}

class GpuTrace : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder = std::make_unique<TemporaryFolder>();
    for (const std::string& path : write_synthetic_gpu_traces(folder->path(), kSteps))
      traces.push_back(read_trace(path));
  }
  static void TearDownTestSuite() {
    traces.clear();
    folder.reset();
  }

  static std::unique_ptr<TemporaryFolder> folder;
  static std::vector<json> traces;
};
std::unique_ptr<TemporaryFolder> GpuTrace::folder;
std::vector<json> GpuTrace::traces;

TEST_F(GpuTrace, HasAllThatHappened) {
  const std::map<std::string, size_t> per_step = {
      {"kernel", 7},        {"gpu_memcpy", 2},      {"gpu_memset", 1},
      {"cuda_runtime", 11}, {"cuda_sync", 2},       {"cuda_event", 1},
      {"cpu_op", 8},        {"user_annotation", 2}, {"gpu_user_annotation", 3}};
  for (const json& trace : traces) {
    for (const auto& [category, count] : per_step)
      EXPECT_EQ(of_category(trace, category).size(), count * kSteps) << category;
    EXPECT_EQ(of_category(trace, "overhead").size(), 1U);
  }
}

TEST_F(GpuTrace, SlicesNestOnEveryTrack) {
  for (const json& trace : traces) EXPECT_EQ(overlaps(trace), std::vector<std::string>());
}

TEST_F(GpuTrace, WorkIsOnItsDevicesTrackAndSaysItsStream) {
  for (size_t rank = 0; rank < traces.size(); ++rank) {
    std::set<int64_t> tracks;
    for (const json& kernel : of_category(traces[rank], "kernel")) {
      EXPECT_EQ(kernel.at("pid"), rank);
      EXPECT_EQ(kernel.at("args").at("device"), rank);
      EXPECT_EQ(kernel.at("args").at("stream"), kSyntheticStream);
      tracks.insert(kernel.at("tid").get<int64_t>());
    }
    // What overlaps is on the stream's second lane.
    EXPECT_EQ(tracks, (std::set<int64_t>{kSyntheticStream, kSyntheticStream + kLaneStride}));
    for (const json& wait : of_category(traces[rank], "cuda_sync")) {
      const bool own = wait.at("name") == "Stream Sync";
      EXPECT_EQ(wait.at("tid"), 1000000 + (own ? kSyntheticStream : kSyntheticCopies));
      EXPECT_EQ(wait.at("pid"), rank);
    }
  }
}

TEST_F(GpuTrace, ArgumentsHaveKinetosNames) {
  const json kernel = of_category(traces[0], "kernel").at(0);
  EXPECT_EQ(kernel.at("name"), kSyntheticGemm);
  for (const char* key :
       {"External id", "queued", "device", "context", "stream", "correlation", "registers per thread",
        "shared memory", "blocks per SM", "warps per SM", "grid", "block", "est. achieved occupancy %"})
    EXPECT_TRUE(kernel.at("args").contains(key)) << key;
  EXPECT_EQ(kernel.at("args").at("grid"), (json{216, 1, 1}));
  EXPECT_EQ(kernel.at("args").at("est. achieved occupancy %"), 25);
  const json copy = of_category(traces[0], "gpu_memcpy").at(0);
  EXPECT_EQ(copy.at("name"), "Memcpy HtoD (Pinned -> Device)");
  EXPECT_EQ(copy.at("args").at("bytes"), 1 << 20);
  EXPECT_NEAR(copy.at("args").at("memory bandwidth (GB/s)").get<double>(), (1 << 20) / 30000.0, 1e-6);
  EXPECT_EQ(of_category(traces[0], "gpu_memset").at(0).at("name"), "Memset (Device)");
  int nodes = 0;
  for (const json& event : of_category(traces[0], "kernel")) {
    if (!event.at("args").contains("graph node id")) continue;
    EXPECT_EQ(event.at("args").at("graph id"), 3);
    ++nodes;
  }
  EXPECT_EQ(nodes, 3 * kSteps);
}

// Every piece of work names the op that was running when it was launched.
TEST_F(GpuTrace, WorkLeadsToItsOp) {
  std::map<uint64_t, std::string> ops;
  for (const json& op : of_category(traces[1], "cpu_op"))
    ops[op.at("args").at("External id")] = op.at("name");
  for (const json& kernel : of_category(traces[1], "kernel")) {
    const std::string op = ops.at(kernel.at("args").at("External id").get<uint64_t>());
    if (kernel.at("args").contains("graph node id")) {
      EXPECT_EQ(op, "omni::replay");
    } else {
      EXPECT_EQ(op, kernel.at("name") == kSyntheticGemm ? "aten::linear" : "aten::rms_norm");
    }
  }
  EXPECT_NE(of_category(traces[1], "kernel").size(), 0U);
}

// A wait names the stream that it is for, and the call that recorded the event there.
TEST_F(GpuTrace, WaitsLeadToWhatIsWaitedFor) {
  std::map<int64_t, std::string> calls;
  for (const json& call : of_category(traces[1], "cuda_runtime"))
    calls[call.at("args").at("correlation")] = call.at("name");
  int waits = 0;
  for (const json& wait : of_category(traces[1], "cuda_sync")) {
    const json& args = wait.at("args");
    EXPECT_EQ(args.at("cuda_sync_kind"), wait.at("name"));
    EXPECT_EQ(args.at("device"), 1);
    EXPECT_EQ(args.contains("wait_on_stream"), wait.at("name") == "Stream Wait Event");
    if (wait.at("name") != "Stream Wait Event") continue;
    ++waits;
    EXPECT_EQ(args.at("stream"), kSyntheticCopies);
    EXPECT_EQ(args.at("wait_on_stream"), kSyntheticStream);
    EXPECT_EQ(args.at("wait_on_cuda_event_id"), kSyntheticEvent);
    EXPECT_EQ(calls.at(args.at("wait_on_cuda_event_record_corr_id")), "cudaEventRecord");
    EXPECT_EQ(calls.at(args.at("correlation")), "cudaStreamWaitEvent");
  }
  EXPECT_EQ(waits, kSteps);
  const json event = of_category(traces[1], "cuda_event").at(0);
  EXPECT_EQ(event.at("name"), "cudaEvent");
  EXPECT_EQ(event.at("args").at("event_id"), kSyntheticEvent);
  EXPECT_EQ(calls.at(event.at("args").at("correlation")), "cudaEventRecord");
}

// Annotations reach from their first to their last piece of work on each stream, above that on its track.
TEST_F(GpuTrace, AnnotationsHaveSpansOnTheGpu) {
  std::map<uint64_t, std::string> host;
  for (const json& event : of_category(traces[2], "user_annotation"))
    host[event.at("args").at("External id")] = event.at("name");
  std::map<std::pair<std::string, int64_t>, json> spans;  // of the first step
  for (const json& span : of_category(traces[2], "gpu_user_annotation")) {
    EXPECT_EQ(host.at(span.at("args").at("External id")), span.at("name"));
    EXPECT_EQ(span.at("pid"), 2);
    EXPECT_FALSE(span.at("args").contains("stream")) << "readers would take it for a kernel";
    spans.try_emplace({span.at("name"), span.at("tid")}, span);
  }
  EXPECT_EQ(spans.size(), 2U * kSteps + 1);
  const auto length_us = [&](const std::string& name, int64_t stream) {
    return spans.at({name, stream}).at("dur").get<double>();
  };
  EXPECT_NEAR(length_us("ProfilerStep#0", kSyntheticStream), 580 - 70, 1e-6);
  EXPECT_NEAR(length_us("ProfilerStep#0", kSyntheticCopies), 642 - 22, 1e-6);
  EXPECT_NEAR(length_us(kSyntheticModule, kSyntheticStream), 220.6 - 120, 1e-6);
}

// Each launch has one arrow, from inside the call to the beginning of the work, in time.
TEST_F(GpuTrace, ArrowsAreWhole) {
  for (const json& trace : traces) {
    std::map<uint64_t, std::pair<json, json>> arrows;
    for (const json& event : trace.at("traceEvents")) {
      if (event.at("ph") != "s" && event.at("ph") != "f") continue;
      EXPECT_EQ(event.at("cat"), "ac2g");
      auto& [start, end] = arrows[event.at("id")];
      json& part = event.at("ph") == "s" ? start : end;
      EXPECT_TRUE(part.is_null()) << "twice: " << event;
      part = event;
    }
    EXPECT_EQ(arrows.size(), 8U * kSteps);
    for (const auto& [id, arrow] : arrows) {
      ASSERT_FALSE(arrow.first.is_null()) << id;
      ASSERT_FALSE(arrow.second.is_null()) << id;
      EXPECT_LE(arrow.first.at("ts").get<double>(), arrow.second.at("ts").get<double>());
    }
  }
}

TEST_F(GpuTrace, NamesDevicesAndStreams) {
  std::map<std::pair<int64_t, int64_t>, std::string> threads;
  std::map<int64_t, std::string> processes;
  for (const json& event : traces[2].at("traceEvents")) {
    if (event.at("ph") != "M") continue;
    if (event.at("name") == "thread_name")
      threads[{event.at("pid"), event.at("tid")}] = event.at("args").at("name");
    if (event.at("name") == "process_name") processes[event.at("pid")] = event.at("args").at("name");
  }
  EXPECT_EQ(processes.at(2), "GPU 2");
  EXPECT_EQ(processes.at(-1), "Overhead");
  EXPECT_EQ((threads.at({2, kSyntheticStream})), "stream 7");
  EXPECT_EQ((threads.at({2, kSyntheticStream + kLaneStride})), "stream 7 overlap 1");
  EXPECT_EQ((threads.at({2, 1000000 + kSyntheticStream})), "stream 7 (sync)");
  EXPECT_EQ(traces[2].at("deviceProperties").at(1).at("numSms"), 108);
}

// ---- the writer alone ------------------------------------------------------------------------------------------------

GpuActivity kernel(uint64_t start, uint64_t end, uint32_t correlation, uint64_t node = 0) {
  GpuActivity activity;
  activity.kind = ActivityKind::kKernel;
  activity.name = "k";
  activity.start = start;
  activity.end = end;
  activity.stream = 7;
  activity.correlation = correlation;
  activity.graph_node = node;
  return activity;
}

GpuActivity other(ActivityKind kind, uint64_t start, uint64_t end, uint32_t correlation) {
  GpuActivity activity;
  activity.kind = kind;
  activity.name = "call";
  activity.start = start;
  activity.end = end;
  activity.correlation = correlation;
  activity.process = static_cast<uint32_t>(::getpid());
  activity.thread = 5;
  return activity;
}

class Writer : public ::testing::Test {
 protected:
  Writer() {
    config.session = "s1";
    config.worker = "stage-0";
    config.trace_path = (folder.path() / "t.json").string();
    config.use_gzip = false;
    trace.emplace(config, 1000, json::object());
    writer.emplace(&*trace, [](uint64_t time) { return static_cast<int64_t>(time); });
  }

  json finish() {
    writer->flush();
    writer->finish();
    trace->finish(100000, json::object());
    return read_trace(config.trace_path);
  }

  TemporaryFolder folder;
  RecorderConfig config;
  std::optional<TraceWriter> trace;
  std::optional<ActivityWriter> writer;
};

TEST_F(Writer, RecordsWithoutTimesAreCountedNotWritten) {
  writer->activity(kernel(0, 0, 1));
  writer->activity(kernel(5000, 4000, 2));
  writer->activity(kernel(5000, 5000, 3));
  EXPECT_EQ(of_category(finish(), "kernel").size(), 1U);
  EXPECT_EQ(writer->dropped(), (std::map<std::string, int64_t>{{"gpu_time", 2}}));
  EXPECT_EQ(writer->events(), 1);
}

// What one drain brings may have begun before what an earlier one brought.
TEST_F(Writer, LateRecordsDoNotOverlap) {
  writer->activity(kernel(5000, 6000, 1));
  writer->flush();
  writer->activity(kernel(4500, 5500, 2));
  writer->activity(kernel(3000, 9000, 3));
  const json result = finish();
  EXPECT_EQ(of_category(result, "kernel").size(), 3U);
  EXPECT_EQ(overlaps(result), std::vector<std::string>());
}

// The runtime's call contains the driver's with the same number: one of them is the launch to those who look for it.
TEST_F(Writer, ACallInsideACallIsNotASecondLaunch) {
  writer->activity(other(ActivityKind::kDriver, 2100, 2900, 9));
  writer->activity(other(ActivityKind::kRuntime, 2000, 3000, 9));
  writer->activity(kernel(4000, 5000, 9));
  const json result = finish();
  EXPECT_EQ(of_category(result, "cuda_runtime").at(0).at("args").at("correlation"), 9);
  const json driver = of_category(result, "cuda_driver").at(0);
  EXPECT_FALSE(driver.at("args").contains("correlation"));
  EXPECT_EQ(driver.at("args").at("runtime correlation"), 9);
  EXPECT_EQ(overlaps(result), std::vector<std::string>());
}

TEST_F(Writer, GraphNodesLeadToTheOpThatWasCaptured) {
  GpuActivity captured;
  captured.kind = ActivityKind::kGraphNode;
  captured.graph_node = 77;
  captured.external_id = 1234;
  writer->activity(captured);
  std::map<uint64_t, int64_t> device_ns;
  std::set<uint64_t> launched_by;
  writer->on_device_work = [&](const ActivityWriter::DeviceWork& work) {
    device_ns[work.belongs_to] += work.span.end_ns - work.span.start_ns;
    launched_by.insert(work.launched_by);
  };
  GpuActivity replay;
  replay.kind = ActivityKind::kExternal;
  replay.correlation = 9;
  replay.external_id = 5678;
  writer->activity(replay);
  writer->activity(kernel(4000, 5000, 9, 77));
  writer->activity(kernel(6000, 6500, 9, 78));  // a node that was made without an op
  const json result = finish();
  const json first = of_category(result, "kernel").at(0);
  EXPECT_EQ(first.at("args").at("Capture external id"), 1234);
  EXPECT_EQ(first.at("args").at("External id"), 5678);
  EXPECT_EQ(device_ns, (std::map<uint64_t, int64_t>{{1234, 1000}, {5678, 500}}));
  EXPECT_EQ(launched_by, (std::set<uint64_t>{5678}));
}

TEST_F(Writer, ContextWaitsHaveATrackOfTheirOwn) {
  writer->activity(kernel(4000, 5000, 9));
  GpuActivity wait = other(ActivityKind::kSync, 4500, 5100, 10);
  wait.name = "Context Sync";
  wait.stream = kNoStream;
  wait.event = kNoEvent;
  writer->activity(wait);
  const json event = of_category(finish(), "cuda_sync").at(0);
  EXPECT_EQ(event.at("args").at("stream"), -1);
  EXPECT_EQ(event.at("tid"), 999999);
}

// An event is recorded again and again: a wait is for the last time before it.
TEST_F(Writer, WaitsAreForTheLastRecordBeforeThem) {
  const auto about_event = [](ActivityKind kind, uint64_t time, uint32_t correlation, uint32_t stream) {
    GpuActivity activity = other(kind, time, time, correlation);
    activity.stream = stream;
    activity.event = 3;
    activity.context = 1;
    return activity;
  };
  writer->activity(about_event(ActivityKind::kEventRecord, 9000, 30, 9));  // reached last, and recorded last
  writer->activity(about_event(ActivityKind::kEventRecord, 5000, 10, 7));
  writer->activity(about_event(ActivityKind::kEventRecord, 0, 20, 8));  // by a driver that does not say when
  for (const uint32_t correlation : {5U, 15U, 25U, 35U})
    writer->activity(about_event(ActivityKind::kSync, 1000 + correlation, correlation, 13));
  const json trace = finish();
  std::vector<std::pair<int, int>> waited_for;
  for (const json& wait : of_category(trace, "cuda_sync")) {
    waited_for.emplace_back(wait.at("args").at("wait_on_stream"),
                            wait.at("args").at("wait_on_cuda_event_record_corr_id"));
  }
  EXPECT_EQ(waited_for, (std::vector<std::pair<int, int>>{{-1, -1}, {7, 10}, {8, 20}, {9, 30}}));
  EXPECT_EQ(of_category(trace, "cuda_event").size(), 2U);
  EXPECT_TRUE(writer->dropped().empty());
}

// A span whose ends lie inside other work of the stream would cross that: it goes beside it.
TEST_F(Writer, AnnotationsThatWouldCrossWorkHaveALaneOfTheirOwn) {
  std::vector<StreamSpan> spans;
  writer->on_device_work = [&](const ActivityWriter::DeviceWork& work) { spans.push_back(work.span); };
  writer->activity(kernel(4000, 5000, 1));
  writer->activity(kernel(4900, 6000, 2));  // begins before that has ended
  writer->activity(kernel(7000, 8000, 3));
  writer->flush();
  ASSERT_EQ(spans.size(), 3U);
  StreamSpans two;
  two.add(spans[1]);
  two.add(spans[2]);
  ASSERT_EQ(two.list().size(), 1U);
  writer->annotation("crosses", 1, two.list()[0]);
  writer->annotation("fits", 2, spans[2]);
  writer->annotation("within", 3, spans[2]);
  const json trace = finish();
  std::map<std::string, int64_t> tracks;
  for (const json& span : of_category(trace, "gpu_user_annotation")) tracks[span.at("name")] = span.at("tid");
  EXPECT_EQ(tracks.at("fits"), 7);
  EXPECT_EQ(tracks.at("within"), 7);
  EXPECT_EQ(tracks.at("crosses"), 7 + 100 * kLaneStride);
  EXPECT_EQ(overlaps(trace), std::vector<std::string>());
  EXPECT_EQ(writer->events(), 6);
}

// More annotations than are kept: the oldest are written in time, and none is lost.
TEST(Annotations, AreWrittenWhenTheirPlaceIsNeeded) {
  std::vector<uint64_t> written;
  AnnotationSpans annotations(
      [&](std::string_view, uint64_t external_id, const StreamSpan&) { written.push_back(external_id); });
  const uint64_t outer = annotations.begin("outer", 1, AnnotationSpans::kNone);
  const uint64_t inner = annotations.begin("inner", 2, outer);
  annotations.work(inner, {.device = 0, .stream = 7, .start_ns = 10, .end_ns = 20});
  EXPECT_TRUE(written.empty());
  for (uint64_t id = 3; id < AnnotationSpans::kMost + 3; ++id)
    annotations.begin("later", id, AnnotationSpans::kNone);
  EXPECT_EQ(written, (std::vector<uint64_t>{1, 2}));
  annotations.work(inner, {.device = 0, .stream = 7, .start_ns = 30, .end_ns = 40});  // too late
  annotations.finish();
  EXPECT_EQ(written.size(), 2U);
}

// Names from the outside world are escaped by the writer.
TEST_F(Writer, StrangeNames) {
  const std::string name = "k<\"a\\b\x01", shown = name;
  GpuActivity strange = kernel(4000, 5000, 1);
  strange.name = name;
  writer->activity(strange);
  EXPECT_EQ(of_category(finish(), "kernel").at(0).at("name"), shown);
}

}  // namespace
}  // namespace omni::cuda
