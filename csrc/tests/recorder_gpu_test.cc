// The stream recorder with a source of GPU activity that is made here: every op launches one kernel.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "expect_error.h"
#include "profiler/scope.h"
#include "profiler/stream_activities.h"
#include "profiler/stream_pool.h"
#include "profiler/stream_recorder.h"
#include "profiler_files.h"

namespace omni {
namespace {

using nlohmann::json;

class KernelPerOp final : public cuda::ActivitySource {
 public:
  std::string start(Clock new_clock) noexcept override {
    clock = new_clock;
    return start_error;
  }
  void push(uint64_t external_id) noexcept override {
    ++depth;
    const std::lock_guard lock(mutex);
    launches.push_back({external_id, clock()});
  }
  void pop() noexcept override { --depth; }
  std::string stop() noexcept override {
    ++stops;
    return "";
  }
  void drain(cuda::ActivitySink& sink) override {
    const std::lock_guard lock(mutex);
    ++drains;
    for (; delivered < launches.size(); ++delivered) {
      const auto& [op, time] = launches[delivered];
      cuda::GpuActivity activity;
      activity.kind = cuda::ActivityKind::kExternal;
      activity.correlation = static_cast<uint32_t>(delivered + 1);
      activity.external_id = op;
      sink.activity(activity);
      activity.kind = cuda::ActivityKind::kRuntime;
      activity.name = "cudaLaunchKernel";
      activity.start = activity.end = time;
      activity.process = static_cast<uint32_t>(::getpid());
      activity.thread = static_cast<uint32_t>(::gettid());
      sink.activity(activity);
      activity.kind = cuda::ActivityKind::kKernel;
      activity.name = "a_kernel";
      activity.start = time + 1000;
      activity.end = time + 3000;
      activity.stream = 7;
      sink.activity(activity);
    }
    cuda::GpuActivity unasked;
    unasked.name = "unasked";
    unasked.stream = 9;
    for (; burst > 0; --burst) {
      unasked.start = unasked.end = clock();
      sink.activity(unasked);
    }
  }
  std::map<std::string, int64_t> dropped() const override {
    const std::lock_guard lock(mutex);
    return {{"gpu_buffer", lost}};
  }
  std::vector<cuda::DeviceProperties> devices() const override {
    cuda::DeviceProperties device;
    device.name = "made up";
    return {device};
  }

  std::map<std::string, int64_t> versions() const override { return {{"cupti_version", 130200}}; }

  Clock clock = nullptr;
  std::string start_error;
  int depth = 0;
  int stops = 0;
  int drains = 0;
  size_t delivered = 0;
  size_t burst = 0;  // kernels that nothing launched
  int64_t lost = 3;
  mutable std::mutex mutex;
  std::vector<std::pair<uint64_t, uint64_t>> launches;
};

class GpuRecorder : public ::testing::Test {
 protected:
  RecorderConfig config(bool trace = true) {
    return RecorderConfig::parse({{"recorder", "stream"},
                                  {"session", "s1"},
                                  {"worker", "stage-0"},
                                  {"trace_path", trace ? trace_path : ""},
                                  {"table_path", (folder.path() / "table.txt").string()},
                                  {"use_gzip", false},
                                  {"activities", {"CPU", "CUDA"}}});
  }

  static RecorderConfig ring(double seconds) {
    return RecorderConfig::parse({{"recorder", "stream"},
                                  {"session", "ring"},
                                  {"worker", "stage-0"},
                                  {"ring_seconds", seconds},
                                  {"use_gzip", false},
                                  {"activities", {"CPU", "CUDA"}}});
  }
  // Of the next dump, whose trace is read from then on.
  json dump_config() {
    trace_path = (folder.path() / ("dump-" + std::to_string(++dumps) + ".json")).string();
    return {{"session", "s1"}, {"trace_path", trace_path}};
  }

  // The names of the ops that launched the kernels of the trace.
  std::multiset<std::string> launched_by() {
    std::map<uint64_t, std::string> ops;
    for (const json& op : events("cpu_op")) ops[op.at("args").at("External id")] = op.at("name");
    std::multiset<std::string> names;
    for (const json& kernel : events("kernel"))
      names.insert(ops.at(kernel.at("args").at("External id").get<uint64_t>()));
    return names;
  }

  // X events of a category.
  std::vector<json> events(const std::string& category) {
    std::vector<json> found;
    const json trace = read_trace(trace_path);
    for (const json& event : trace.at("traceEvents"))
      if (event.at("ph") == "X" && event.value("cat", "") == category) found.push_back(event);
    return found;
  }

  TemporaryFolder folder;
  std::string trace_path = (folder.path() / "t.json").string();
  int dumps = 0;
  KernelPerOp gpu;
};

TEST_F(GpuRecorder, KernelsNameTheOpThatLaunchedThem) {
  const at::Tensor x = at::ones({4, 4});
  const auto recorder = start_stream_recorder(config(), &gpu);
  recorder->step_begin(0);
  {
    const Scope scope("layer");
    at::linear(x, x);
    at::add(x, x);
  }
  recorder->step_end();
  recorder->stop();
  EXPECT_EQ(gpu.stops, 1);
  EXPECT_EQ(gpu.depth, 0);
  const json result = recorder->finish();
  EXPECT_GE(gpu.drains, 1);
  EXPECT_EQ(result.at("dropped").at("gpu_buffer"), 3);

  std::multiset<std::string> all;
  for (const json& op : events("cpu_op")) all.insert(op.at("name"));
  EXPECT_TRUE(all.contains("aten::linear"));
  EXPECT_EQ(launched_by(), all);
  EXPECT_EQ(events("user_annotation").size(), 2U);
  // From the first kernel to the last, for the step and for the scope in it.
  std::set<std::string> spans;
  for (const json& span : events("gpu_user_annotation")) spans.insert(span.at("name"));
  EXPECT_EQ(spans, (std::set<std::string>{"ProfilerStep#0", "layer"}));
  // Each op, its call and its kernel; the annotations, here and there.
  EXPECT_EQ(result.at("events"), 3 * all.size() + 4);
  EXPECT_EQ(recorder->status().events, 3 * all.size() + 2);
  const json trace = read_trace(trace_path);
  EXPECT_EQ(trace.at("deviceProperties").at(0).at("name"), "made up");
  EXPECT_EQ(trace.at("cupti_version"), 130200);
  EXPECT_EQ(overlaps(trace), std::vector<std::string>());
}

// Device time counts for the op that launched, and for those around it; linear calls matmul calls mm.
TEST_F(GpuRecorder, TheTableHasDeviceTimes) {
  const at::Tensor x = at::ones({4, 4});
  const auto recorder = start_stream_recorder(config(/*trace=*/false), &gpu);
  at::add(x, x);
  recorder->stop();
  recorder->finish();
  const std::string table = read_text((folder.path() / "table.txt").string());
  EXPECT_NE(table.find("Self CUDA"), std::string::npos) << table;
  std::istringstream row(table.substr(table.find("aten::add ")));
  std::vector<std::string> cells(10);
  for (std::string& cell : cells) row >> cell;
  EXPECT_EQ(cells[7], "100.00%") << "of the device's time: " << table;
  EXPECT_NE(table.find("a_kernel"), std::string::npos) << table;
  EXPECT_NE(table.find("Self CUDA time total"), std::string::npos) << table;
}

TEST_F(GpuRecorder, SaysWhatIsInTheWay) {
  gpu.start_error = "another profiler of this process has CUPTI";
  expect_error([&] { start_stream_recorder(config(), &gpu); }, OMNI_FAILED_PRECONDITION,
               {"activities: CUDA: another profiler"});
}

TEST_F(GpuRecorder, StopsTheSourceWhenItIsDropped) {
  start_stream_recorder(config(), &gpu).reset();
  EXPECT_EQ(gpu.stops, 1);
}

TEST_F(GpuRecorder, WhatAGpuDoesCountsForTheBudget) {
  RecorderConfig limited = config();
  limited.max_events = 5;
  const at::Tensor x = at::ones({4, 4});
  const auto recorder = start_stream_recorder(limited, &gpu);
  for (int i = 0; i < 3; ++i) at::add(x, x);
  recorder->stop();
  const json result = recorder->finish();
  EXPECT_EQ(result.at("events"), 5);
  EXPECT_EQ(result.at("dropped").at("budget"), 3 * 3 - 5);
  EXPECT_EQ(events("cpu_op").size() + events("cuda_runtime").size() + events("kernel").size(), 5U);
}

TEST_F(GpuRecorder, ARingHoldsWhatTheGpuDid) {
  const at::Tensor x = at::ones({4});
  const auto recorder = start_stream_recorder(ring(60), &gpu);
  at::add(x, x);
  const auto first = recorder->dump(dump_config());
  at::mul(x, x);
  const json result = first->finish();
  EXPECT_EQ(launched_by(), (std::multiset<std::string>{"aten::add"}));
  EXPECT_EQ(events("cuda_runtime").size(), 1U);
  EXPECT_EQ(result.at("events"), 3);
  EXPECT_EQ(result.at("dropped").at("gpu_buffer"), 3);
  EXPECT_EQ(read_trace(trace_path).at("deviceProperties").at(0).at("name"), "made up");

  recorder->dump(dump_config())->finish();
  EXPECT_EQ(launched_by(), (std::multiset<std::string>{"aten::add", "aten::mul"}));
  recorder->stop();
  EXPECT_EQ(gpu.stops, 1);
  EXPECT_EQ(recorder->finish().at("files"), json::array());
}

// Also the losses that lie before its span.
TEST_F(GpuRecorder, ARingForgetsWhatTheGpuDidBefore) {
  const at::Tensor x = at::ones({4});
  const auto recorder = start_stream_recorder(ring(0.2), &gpu);
  at::add(x, x);
  recorder->dump(dump_config())->finish();
  std::this_thread::sleep_for(std::chrono::milliseconds(400));  // the clock that the ring goes by
  at::mul(x, x);
  const json result = recorder->dump(dump_config())->finish();
  EXPECT_EQ(launched_by(), (std::multiset<std::string>{"aten::mul"}));
  EXPECT_EQ(result.at("dropped"), json::object());
  recorder->stop();
}

// More than fits: the oldest make room for the latest, of the host's events as well, and nothing is lost.
TEST_F(GpuRecorder, ARingOfAGpuHasFixedMemory) {
  const at::Tensor x = at::ones({4});
  const auto recorder = start_stream_recorder(ring(3600), &gpu);
  at::add(x, x);
  const size_t room = stream::kChunkBytes * stream::kPoolChunks / sizeof(cuda::ActivityFacts);
  {
    const std::lock_guard lock(gpu.mutex);
    gpu.burst = 4 * room;
    gpu.lost = 0;
  }
  at::mul(x, x);
  json dump = dump_config();
  dump.erase("trace_path");
  dump["table_path"] = (folder.path() / "table.txt").string();
  const json result = recorder->dump(dump)->finish();
  EXPECT_GT(result.at("events").get<size_t>(), room);
  EXPECT_LT(result.at("events").get<size_t>(), 4 * room);
  EXPECT_EQ(result.at("dropped"), json::object());
  EXPECT_NE(read_text((folder.path() / "table.txt").string()).find("unasked"), std::string::npos);
  recorder->stop();
}

TEST(Activities, SurviveTheLog) {
  cuda::ActivityFacts call;
  call.kind = cuda::ActivityKind::kRuntime;
  call.start = 5;
  call.end = 7;
  call.external_id = uint64_t{1} << 50;
  call.correlation = 9;
  call.process = 10;
  call.thread = 11;
  call.cbid = 12;
  EXPECT_EQ(stream::activity_bytes(call), 40U) << "what a call does not have takes no room";
  cuda::ActivityFacts kernel = call;
  kernel.kind = cuda::ActivityKind::kKernel;
  kernel.occupancy = -1;
  kernel.grid = {1, 2, 3};
  for (const cuda::ActivityFacts& facts : {call, kernel, cuda::ActivityFacts()}) {
    const cuda::ActivityFacts back =
        stream::activity_facts(facts.start, stream::activity_payload(facts), stream::activity_bytes(facts));
    EXPECT_EQ(std::memcmp(&back, &facts, sizeof facts), 0);
  }
}

// Without a source ops carry no number for one.
TEST_F(GpuRecorder, NothingChangesWithoutASource) {
  const at::Tensor x = at::ones({4});
  const auto recorder = start_stream_recorder(config(), nullptr);
  at::add(x, x);
  recorder->stop();
  recorder->finish();
  ASSERT_EQ(events("cpu_op").size(), 1U);
  EXPECT_EQ(events("cpu_op")[0].at("args").at("External id"), 1);
  EXPECT_TRUE(events("kernel").empty());
}

}  // namespace
}  // namespace omni
