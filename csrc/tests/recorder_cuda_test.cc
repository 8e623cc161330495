// The recorder for tools that watch from outside, with marks that are written down.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "cuda/cuda_recorder.h"
#include "expect_error.h"
#include "profiler/scope.h"
#include "runtime/cuda.h"

namespace omni {
namespace {

class WrittenRanges final : public cuda::Ranges {
 public:
  void push(const char* name) noexcept override { log.push_back(name); }
  void pop() noexcept override { log.push_back("end"); }
  std::string start_tool() noexcept override {
    log.push_back("start");
    return start_error;
  }
  std::string stop_tool() noexcept override {
    log.push_back("stop");
    return "";
  }

  std::vector<std::string> log;
  std::string start_error;
};

RecorderConfig config() {
  return RecorderConfig::parse({{"recorder", "cuda"}, {"session", "s1"}, {"worker", "stage-0"}});
}

TEST(CudaRecorder, MarksStepsAndModules) {
  WrittenRanges marks;
  const auto recorder = start_cuda_recorder(config(), marks);
  recorder->step_begin(3);
  {
    const Scope scope("thinker.layers.0");
    at::ones({2}).add(1);  // ops are for the tool itself to see
  }
  recorder->step_end();
  recorder->stop();
  {
    const Scope scope("after the end");
  }
  EXPECT_EQ(marks.log,
            (std::vector<std::string>{"start", "ProfilerStep#3", "thinker.layers.0", "end", "end", "stop"}));
  const nlohmann::json result = recorder->finish();
  EXPECT_EQ(result.at("files"), nlohmann::json::array());
  EXPECT_EQ(result.at("steps"), 1);
  EXPECT_EQ(result.at("events"), 1);
}

TEST(CudaRecorder, StopsTheToolWhenItIsDropped) {
  WrittenRanges marks;
  start_cuda_recorder(config(), marks).reset();
  EXPECT_EQ(marks.log, (std::vector<std::string>{"start", "stop"}));
}

TEST(CudaRecorder, SaysWhyTheToolCannotBegin) {
  WrittenRanges marks;
  marks.start_error = "cudaProfilerStart: not permitted";
  expect_error([&] { start_cuda_recorder(config(), marks); }, OMNI_INTERNAL,
               {"recorder \"cuda\": cudaProfilerStart: not permitted"});
}

TEST(CudaRecorder, NeedsADevice) {
  if (open_cuda().plugin != nullptr) GTEST_SKIP() << "this machine has a GPU and this build its CUDA part";
  expect_error([] { start_recorder({{"recorder", "cuda"}, {"session", "s1"}, {"worker", "stage-0"}}); },
               OMNI_FAILED_PRECONDITION, {"recorder \"cuda\": "});
  // A start that failed does not block the next.
  start_recorder({{"recorder", "stream"}, {"session", "s1"}, {"worker", "stage-0"}})->stop();
}

}  // namespace
}  // namespace omni
