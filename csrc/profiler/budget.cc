// The JSON form of a status.
#include "profiler/budget.h"

namespace omni {

nlohmann::json RecorderStatus::json() const {
  return {{"events", events},
          {"dropped", dropped.empty() ? nlohmann::json::object() : nlohmann::json(dropped)},
          {"trace_bytes", trace_bytes},
          {"overhead_ns", overhead_ns},
          {"full", full_name(full)}};
}

}  // namespace omni
