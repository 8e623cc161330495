// Statuses: making them from errors and exceptions, and reading them through the C interface.
#include "status.h"

#include <c10/util/Exception.h>

#include <cstring>
#include <exception>
#include <iterator>
#include <new>
#include <string>

#include "handles.h"

namespace omni {
namespace {

// What make_status returns when not even a status can be allocated. Never freed and not counted as alive.
omni_status* out_of_memory_status() noexcept {
  static struct Fallback {
    omni_status status{OMNI_RESOURCE_EXHAUSTED, "out of memory", {}};
    Fallback() { live_count(HandleClass::kStatus).fetch_sub(1, std::memory_order_relaxed); }
  } fallback;
  return &fallback.status;
}

// Built when the library is loaded, while there is memory.
[[maybe_unused]] omni_status* const kOutOfMemoryBuilt = out_of_memory_status();

// libtorch's host allocator throws a plain c10::Error: its text is the only thing that tells it from the rest.
bool is_host_out_of_memory(const char* message) {
  return std::strstr(message, "DefaultCPUAllocator: can't allocate memory") != nullptr;
}

omni_code code_of(const c10::Error& error, const char* message) {
  if (dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr) return OMNI_RESOURCE_EXHAUSTED;
  if (dynamic_cast<const c10::NotImplementedError*>(&error) != nullptr) return OMNI_UNIMPLEMENTED;
  if (dynamic_cast<const c10::AcceleratorError*>(&error) != nullptr) return OMNI_DEVICE_LOST;
  return is_host_out_of_memory(message) ? OMNI_RESOURCE_EXHAUSTED : OMNI_INTERNAL;
}

}  // namespace

omni_status* make_status(omni_code code, const std::string& message) noexcept {
  try {
    return new omni_status{code, message, {}};
  } catch (...) {
    return out_of_memory_status();
  }
}

omni_status* status_of_current_exception() noexcept {
  try {
    throw;
  } catch (const Error& error) {
    return make_status(error.code(), error.what());
  } catch (const c10::Error& error) {
    try {
      const char* message = error.what_without_backtrace();
      return make_status(code_of(error, message), message);
    } catch (...) {
      return out_of_memory_status();
    }
  } catch (const std::bad_alloc&) {
    return out_of_memory_status();
  } catch (const std::exception& error) {
    try {
      return make_status(OMNI_INTERNAL, error.what());
    } catch (...) {
      return out_of_memory_status();
    }
  } catch (...) {
    return make_status(OMNI_INTERNAL, "an exception of unknown type");
  }
}

int64_t live_count(const char* name) noexcept {
  static constexpr const char* kNames[] = {"status", "buffer", "engine", "sequence", "step", "recorder"};
  static_assert(std::size(kNames) == static_cast<size_t>(HandleClass::kCount));
  for (size_t i = 0; name != nullptr && i < std::size(kNames); ++i) {
    if (std::strcmp(kNames[i], name) == 0) return live_count(static_cast<HandleClass>(i)).load();
  }
  return -1;
}

}  // namespace omni

int32_t omni_status_code(const omni_status* status) { return status == nullptr ? OMNI_OK : status->code; }

const char* omni_status_message(const omni_status* status, size_t* size) {
  if (size != nullptr) *size = status == nullptr ? 0 : status->message.size();
  return status == nullptr ? "" : status->message.c_str();
}

void omni_status_free(omni_status* status) {
  if (status != omni::out_of_memory_status()) delete status;
}
