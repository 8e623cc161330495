// What GPUs do, in the log of a session: each activity is a record as every op is, so that a ring keeps and drops the one as
// it does the other.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <string>

#include "cuda/gpu_collection.h"

namespace omni::stream {

// The log that fills the open session. Belongs to one thread, which it gives a log of its own.
std::unique_ptr<cuda::ActivityLog> activity_log();

// Bytes of an activity's record behind the header, whose time is its start: those of ActivityFacts from the end on, without
// words of 0 at the end.
size_t activity_bytes(const cuda::ActivityFacts& facts);
const std::byte* activity_payload(const cuda::ActivityFacts& facts);
// The other way round. bytes may be larger than what was written, by padding.
cuda::ActivityFacts activity_facts(uint64_t start, const std::byte* payload, size_t bytes);

}  // namespace omni::stream
