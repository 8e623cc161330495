// The second library as a worker meets it. Nothing here may lead to a call of CUPTI: there may be no driver.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include "cuda/activity.h"

namespace omni::cuda {
namespace {

TEST(CudaPlugin, OpensAndOffersWhatItIsFor) {
  void* const library = dlopen(OMNI_CUDA_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(library, nullptr) << dlerror();
  const auto entry = reinterpret_cast<PluginEntry>(dlsym(library, kPluginEntry));
  ASSERT_NE(entry, nullptr) << dlerror();
  const Plugin* const plugin = entry();
  ASSERT_NE(plugin, nullptr);
  EXPECT_EQ(plugin->version, kPluginVersion);
  EXPECT_NE(plugin->activities, nullptr);
  ASSERT_NE(plugin->ranges, nullptr);
  // Without a tool, ranges do nothing.
  plugin->ranges->push("step");
  plugin->ranges->pop();
  plugin->ranges->pop();
  EXPECT_EQ(entry(), plugin);
}

}  // namespace
}  // namespace omni::cuda
