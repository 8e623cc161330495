// Who the torch thread is.
#include "runtime/torch_thread.h"

#include <ATen/Parallel.h>

#include <mutex>
#include <optional>
#include <thread>

#include "status.h"

namespace omni {
namespace {

std::mutex thread_mutex;
std::optional<std::thread::id> torch_thread;  // guarded by thread_mutex; never changes once it is set
int64_t thread_count = 0;  // guarded by thread_mutex; torch's own answer differs from thread to thread

}  // namespace

void init_torch_thread(int64_t threads) {
  const std::lock_guard lock(thread_mutex);
  if (!torch_thread.has_value()) torch_thread = std::this_thread::get_id();
  if (*torch_thread != std::this_thread::get_id()) {
    throw Error(OMNI_WRONG_THREAD, "another thread is the torch thread of this process already");
  }
  if (threads > 0) at::set_num_threads(static_cast<int>(threads));
  thread_count = at::get_num_threads();
}

int64_t torch_thread_count() {
  const std::lock_guard lock(thread_mutex);
  return thread_count;
}

void require_torch_thread() {
  const std::lock_guard lock(thread_mutex);
  if (!torch_thread.has_value()) {
    throw Error(OMNI_FAILED_PRECONDITION, "omni_runtime_init has not been called");
  }
  if (*torch_thread != std::this_thread::get_id()) {
    throw Error(OMNI_WRONG_THREAD, "not the thread that called omni_runtime_init");
  }
}

}  // namespace omni
