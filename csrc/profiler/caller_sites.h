// Call sites of annotations that a program in another language opens through omni.h. Apart from call_sites.h, which every
// model includes.
#pragma once

#include <string_view>

namespace omni {

// The name under which the call site of all steps is noted.
constexpr std::string_view kStepSite = "ProfilerStep";

// Notes where annotations of that name are opened, in the form of call_site(), if anybody wants to know. Any thread.
void note_caller_site(std::string_view name, std::string_view site);

}  // namespace omni
