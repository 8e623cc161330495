// The error that travels inside the library, and the only place where an exception becomes an omni_status.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include "omni.h"

namespace omni {

// Thrown by everything behind the C functions. The message says what was wrong, where, and what was expected:
// it reaches the user as it is.
class Error : public std::runtime_error {
 public:
  Error(omni_code code, const std::string& message) : std::runtime_error(message), code_(code) {}
  omni_code code() const { return code_; }

 private:
  omni_code code_;
};

// An owned status for the given error. Falls back to a static one when memory is exhausted.
omni_status* make_status(omni_code code, const std::string& message) noexcept;

// The status of the exception that is being handled: omni::Error keeps its code; c10::Error, std::bad_alloc and
// everything else get theirs. Call in a catch block only.
omni_status* status_of_current_exception() noexcept;

// Runs body and turns whatever it throws into a status, so that no exception leaves the library.
template <typename Body>
omni_status* guard(Body&& body) noexcept {
  try {
    std::forward<Body>(body)();
    return nullptr;
  } catch (...) {
    return status_of_current_exception();
  }
}

}  // namespace omni
