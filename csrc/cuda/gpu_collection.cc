// Between the recorder and the source.
#include "cuda/gpu_collection.h"

#include <c10/util/ApproximateClock.h>

#include <utility>

#include "status.h"

namespace omni::cuda {
namespace {

uint64_t counter() { return c10::getApproximateTime(); }

}  // namespace

GpuCollection::GpuCollection(ActivitySource& source) : source_(source) {
  if (const std::string error = source.start(&counter); !error.empty())
    throw Error(OMNI_FAILED_PRECONDITION, "activities: CUDA: " + error);
  running_ = true;
}

GpuCollection::~GpuCollection() {
  if (running_) source_.stop();
}

void GpuCollection::stop() {
  if (std::exchange(running_, false)) error_ = source_.stop();
}

void GpuCollection::attach(TraceWriter* trace, std::function<int64_t(uint64_t)> unix_ns, DeviceWork work) {
  writer_ = std::make_unique<ActivityWriter>(trace, std::move(unix_ns));
  writer_->on_device_work = std::move(work);
}

void GpuCollection::drain() {
  source_.drain(*writer_);
  writer_->flush();
}

void GpuCollection::finish() {
  drain();
  writer_->finish();
}

int64_t GpuCollection::events() const { return writer_ == nullptr ? 0 : writer_->events(); }

std::map<std::string, int64_t> GpuCollection::dropped() const {
  std::map<std::string, int64_t> all = source_.dropped();
  if (writer_ != nullptr) {
    for (const auto& [reason, count] : writer_->dropped()) all[reason] += count;
  }
  return all;
}

}  // namespace omni::cuda
