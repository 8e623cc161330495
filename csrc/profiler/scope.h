// Names a part of a network in profiles: thinker.layers.3.self_attn. Costs a few nanoseconds when nothing records.
#pragma once

#include <ATen/record_function.h>

#include <source_location>
#include <string>

#include "profiler/call_sites.h"

namespace omni {

// Marks the time from its construction to its destruction as one annotation. Use it as a local variable; scopes of one
// thread nest as blocks do. The name is the module's path in the checkpoint and must outlive the constructor only:
// build it once when the model is built, not per call.
class Scope {
 public:
  explicit Scope(const std::string& name, const std::source_location& site = std::source_location::current())
      : guard_(at::RecordScope::USER_SCOPE) {
    if (guard_.isActive()) {
      note_call_site(name, site);
      guard_.before(std::string_view(name));
    }
  }

 private:
  at::RecordFunction guard_;
};

}  // namespace omni
