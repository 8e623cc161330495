// Sums.
#include "profiler/stream_cost.h"

#include "profiler/stream_clock.h"

namespace omni::stream {
Costs& Costs::operator+=(const Costs& other) {
  for (size_t i = 0; i < parts.size(); ++i) {
    parts[i].calls += other.parts[i].calls;
    parts[i].samples += other.parts[i].samples;
    parts[i].ticks += other.parts[i].ticks;
  }
  return *this;
}

int64_t Costs::nanoseconds(double dispatch_ns) const {
  const double per_tick = ns_per_tick();
  double total = dispatch_ns * static_cast<double>(parts[static_cast<size_t>(CostPart::kBegin)].calls);
  for (const Part& part : parts) {
    if (part.samples == 0) continue;
    total += static_cast<double>(part.calls) * static_cast<double>(part.ticks) * per_tick /
             static_cast<double>(part.samples);
  }
  return static_cast<int64_t>(total);
}

Costs CostMeter::costs() const {
  Costs costs;
  for (size_t i = 0; i < parts_.size(); ++i) {
    costs.parts[i] = {parts_[i].calls.load(std::memory_order_relaxed),
                      parts_[i].samples.load(std::memory_order_relaxed),
                      parts_[i].ticks.load(std::memory_order_relaxed)};
  }
  return costs;
}

void CostMeter::reset() {
  for (Part& part : parts_) {
    part.calls.store(0, std::memory_order_relaxed);
    part.samples.store(0, std::memory_order_relaxed);
    part.ticks.store(0, std::memory_order_relaxed);
    part.since_sample = Part{}.since_sample;
  }
}

}  // namespace omni::stream
