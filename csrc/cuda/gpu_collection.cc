// Between the recorder and the source.
#include "cuda/gpu_collection.h"

#include <c10/util/ApproximateClock.h>

#include <chrono>
#include <exception>
#include <utility>

#include "status.h"

namespace omni::cuda {
namespace {

constexpr std::chrono::milliseconds kPeriod(100);

uint64_t counter() { return c10::getApproximateTime(); }

}  // namespace

GpuCollection::GpuCollection(ActivitySource& source) : source_(source), environment_(environment_of(source)) {
  if (const std::string error = source.start(&counter); !error.empty())
    throw Error(OMNI_FAILED_PRECONDITION, "activities: CUDA: " + error);
  collecting_ = true;
}

GpuCollection::~GpuCollection() { stop(); }

void GpuCollection::feed(std::unique_ptr<ActivityLog> log) {
  log_ = std::move(log);
  thread_ = std::thread([this] { run(); });
}

void GpuCollection::catch_up() {
  std::unique_lock lock(mutex_);
  const uint64_t ticket = ++wanted_;
  changed_.notify_all();
  changed_.wait(lock, [&] { return done_ >= ticket; });
}

void GpuCollection::stop() {
  if (!std::exchange(collecting_, false)) return;
  source_.stop();  // what goes wrong here says that devices are in a bad state, which the next op says too
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void GpuCollection::run() {
  std::unique_lock lock(mutex_);
  for (bool last = false; !last;) {
    changed_.wait_for(lock, kPeriod, [this] { return stopping_ || wanted_ > done_; });
    last = stopping_;
    const uint64_t answered = wanted_;
    lock.unlock();
    drain();
    lock.lock();
    done_ = answered;
    changed_.notify_all();
  }
}

void GpuCollection::drain() {
  try {
    source_.drain(*log_);
    std::map<std::string, int64_t> lost = source_.dropped();
    std::map<std::string, int64_t> fresh;
    for (const auto& [reason, count] : lost) {
      if (const int64_t more = count - told_[reason]; more > 0) fresh[reason] = more;
    }
    told_ = std::move(lost);
    log_->drained(fresh);
  } catch (const std::exception&) {
    // Out of memory: what this brought is lost, and the model goes on.
  }
}

}  // namespace omni::cuda
