// The stream recorder with a source of GPU activity that is made here: every op launches one kernel.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "expect_error.h"
#include "profiler/scope.h"
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
  }
  std::map<std::string, int64_t> dropped() const override { return {{"gpu_buffer", 3}}; }
  std::vector<cuda::DeviceProperties> devices() const override {
    cuda::DeviceProperties device;
    device.name = "made up";
    return {device};
  }

  Clock clock = nullptr;
  std::string start_error;
  int depth = 0;
  int stops = 0;
  int drains = 0;
  size_t delivered = 0;
  std::mutex mutex;
  std::vector<std::pair<uint64_t, uint64_t>> launches;
};

class GpuRecorder : public ::testing::Test {
 protected:
  RecorderConfig config(bool trace = true) {
    return RecorderConfig::parse({{"recorder", "stream"},
                                  {"session", "s1"},
                                  {"worker", "stage-0"},
                                  {"trace_path", trace ? (folder.path() / "t.json").string() : ""},
                                  {"table_path", (folder.path() / "table.txt").string()},
                                  {"use_gzip", false},
                                  {"activities", {"CPU", "CUDA"}}});
  }

  // X events of a category.
  std::vector<json> events(const std::string& category) {
    std::vector<json> found;
    const json trace = read_trace((folder.path() / "t.json").string());
    for (const json& event : trace.at("traceEvents"))
      if (event.at("ph") == "X" && event.value("cat", "") == category) found.push_back(event);
    return found;
  }

  TemporaryFolder folder;
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

  std::map<uint64_t, std::string> ops;
  for (const json& op : events("cpu_op")) ops[op.at("args").at("External id")] = op.at("name");
  std::multiset<std::string> launched_by;
  for (const json& kernel : events("kernel"))
    launched_by.insert(ops.at(kernel.at("args").at("External id").get<uint64_t>()));
  std::multiset<std::string> all;
  for (const auto& [id, name] : ops) all.insert(name);
  EXPECT_TRUE(all.contains("aten::linear"));
  EXPECT_EQ(launched_by, all);
  const size_t annotations = events("user_annotation").size();
  EXPECT_EQ(annotations, 2U);
  // Each op, its call and its kernel.
  EXPECT_EQ(result.at("events"), 3 * all.size() + annotations);
  const json trace = read_trace((folder.path() / "t.json").string());
  EXPECT_EQ(trace.at("deviceProperties").at(0).at("name"), "made up");
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
