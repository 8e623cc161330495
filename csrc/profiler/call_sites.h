// Where in the program a scope stands: what stands in for Python's stack frames in a profile with_stack.
#pragma once

#include <source_location>
#include <string>
#include <string_view>

namespace omni {

// Whether anybody wants call sites noted. Set while a recorder with_stack records. Any thread.
void want_call_sites(bool wanted);

// Notes where the scope of that name stands, if anybody wants to know. Any thread; a few nanoseconds when the calling
// thread has noted it before.
void note_call_site(std::string_view name, const std::source_location& site);

// "csrc/nn/decoder.cc(135): attention", as torch writes the frames of stacks; empty if none was noted. Any thread.
std::string call_site(std::string_view name);

}  // namespace omni
