// Activities as records.
#include "profiler/stream_activities.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "profiler/stream_log.h"

namespace omni::stream {
namespace {

using cuda::ActivityFacts;

constexpr size_t kSkipped = sizeof(ActivityFacts::start);
constexpr size_t kWords = (sizeof(ActivityFacts) - kSkipped) / 8;
static_assert(offsetof(ActivityFacts, end) == kSkipped);

class Log final : public cuda::ActivityLog {
 public:
  void activity(const cuda::GpuActivity& activity) override {
    if (ThreadLog* const log = ThreadLog::current()) log->activity(activity);
  }

  void drained(const std::map<std::string, int64_t>& lost) override {
    if (ThreadLog* const log = ThreadLog::current()) log->activities_end(lost);
  }
};

}  // namespace

std::unique_ptr<cuda::ActivityLog> activity_log() { return std::make_unique<Log>(); }

size_t activity_bytes(const ActivityFacts& facts) {
  std::array<uint64_t, kWords> words;
  std::memcpy(words.data(), activity_payload(facts), sizeof words);
  size_t used = kWords;
  while (used > 0 && words[used - 1] == 0) --used;
  return used * 8;
}

const std::byte* activity_payload(const ActivityFacts& facts) {
  return reinterpret_cast<const std::byte*>(&facts) + kSkipped;
}

ActivityFacts activity_facts(uint64_t start, const std::byte* payload, size_t bytes) {
  ActivityFacts facts;
  facts.start = start;
  std::memcpy(reinterpret_cast<std::byte*>(&facts) + kSkipped, payload, std::min(bytes, kWords * 8));
  return facts;
}

}  // namespace omni::stream
