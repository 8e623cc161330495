// Device names, and a CUDA request on a machine that may lack CUDA.
#include "runtime/device.h"

#include <gtest/gtest.h>

#include "expect_error.h"
#include "runtime/cuda.h"

namespace omni {
namespace {

TEST(Device, OpensTheCPUWithoutTouchingCUDA) {
  EXPECT_EQ(open_device("cpu"), at::Device(at::kCPU));
  EXPECT_EQ(cuda_info(), (nlohmann::json{{"opened", false}, {"devices", 0}}));
}

TEST(Device, RefusesOtherNames) {
  for (const char* name :
       {"", "CPU", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "cuda:+1", "cuda:999", "cuda:0 "}) {
    expect_error([&] { open_device(name); }, OMNI_INVALID_ARGUMENT,
                 {"device \"" + std::string(name) + "\"", "expected \"cpu\", \"cuda\" or \"cuda:N\""});
  }
}

// With a GPU: the last possible index is refused, naming how many there are. Without: the reason is said, twice alike.
TEST(Device, SaysWhyCUDAIsNotAvailable) {
  std::string first;
  for (int i = 0; i < 2; ++i) {
    try {
      open_device("cuda:127");
      FAIL() << "127 is no device of any machine";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), OMNI_FAILED_PRECONDITION);
      if (i == 0) first = error.what();
      EXPECT_EQ(error.what(), first);
    }
  }
  EXPECT_EQ(first.find("device \"cuda:127\": no CUDA device: "), 0U) << first;
  const nlohmann::json info = cuda_info();
  EXPECT_EQ(info.at("opened"), true);
  EXPECT_EQ(info.at("devices").get<int64_t>() == 0, info.contains("reason")) << info.dump();
  EXPECT_EQ(info.at("plugin").get<bool>(), !info.contains("plugin_reason")) << info.dump();
  if (!info.at("driver").get<bool>()) {
    EXPECT_NE(first.find("no NVIDIA driver is installed (libcuda.so.1: "), std::string::npos) << first;
  }
}

}  // namespace
}  // namespace omni
