// Statuses of exceptions, and counting of handles.
#include "status.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <new>
#include <stdexcept>
#include <vector>

#include "handles.h"

namespace omni {
namespace {

struct Outcome {
  int32_t code;
  std::string message;
};

template <typename Body>
Outcome outcome_of(Body&& body) {
  omni_status* status = guard(body);
  size_t size = 0;
  const char* message = omni_status_message(status, &size);
  Outcome outcome{omni_status_code(status), std::string(message, size)};
  omni_status_free(status);
  return outcome;
}

TEST(Guard, GivesEveryExceptionItsCode) {
  const int64_t alive = live_count("status");
  EXPECT_EQ(outcome_of([] {}).code, OMNI_OK);
  const Outcome own = outcome_of([] { throw Error(OMNI_DEVICE_LOST, "the device fell off"); });
  EXPECT_EQ(own.code, OMNI_DEVICE_LOST);
  EXPECT_EQ(own.message, "the device fell off");
  const Outcome torch = outcome_of([] { TORCH_CHECK(false, "a check of torch"); });
  EXPECT_EQ(torch.code, OMNI_INTERNAL);
  EXPECT_EQ(torch.message, "a check of torch") << "without the stack of C++";
  EXPECT_EQ(outcome_of([] { TORCH_CHECK_NOT_IMPLEMENTED(false, "later"); }).code, OMNI_UNIMPLEMENTED);
  EXPECT_EQ(outcome_of([] { TORCH_CHECK_WITH(OutOfMemoryError, false, "full"); }).code,
            OMNI_RESOURCE_EXHAUSTED);
  EXPECT_EQ(outcome_of([] { at::empty({int64_t{1} << 60}); }).code, OMNI_RESOURCE_EXHAUSTED);
  EXPECT_EQ(outcome_of([] { throw std::bad_alloc(); }).code, OMNI_RESOURCE_EXHAUSTED);
  EXPECT_EQ(outcome_of([] { throw std::runtime_error("standard"); }).message, "standard");
  EXPECT_EQ(outcome_of([] { throw 7; }).code, OMNI_INTERNAL);
  EXPECT_EQ(live_count("status"), alive);
}

TEST(Handles, AreCountedWhileTheyLive) {
  const int64_t before = live_count("buffer");
  {
    std::vector<omni_buffer> buffers(3);
    EXPECT_EQ(live_count("buffer"), before + 3);
    std::vector<omni_buffer> moved = std::move(buffers);
    Live<HandleClass::kBuffer> first;
    const Live<HandleClass::kBuffer> second = std::move(first);
    EXPECT_EQ(live_count("buffer"), before + 4);
  }
  EXPECT_EQ(live_count("buffer"), before);
}

}  // namespace
}  // namespace omni
