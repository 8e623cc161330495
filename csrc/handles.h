// The objects behind the opaque handles of omni.h, and how many of each are alive.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "models/engine.h"
#include "omni.h"

namespace omni {

class Recorder;

// The classes that omni_runtime_live knows.
enum class HandleClass : size_t { kStatus, kBuffer, kEngine, kSequence, kStep, kRecorder, kCount };

inline std::atomic<int64_t>& live_count(HandleClass handle_class) {
  static std::atomic<int64_t> counts[static_cast<size_t>(HandleClass::kCount)] = {};
  return counts[static_cast<size_t>(handle_class)];
}

// The live handles of the class that omni.h calls name, -1 if there is no such class. Any thread.
int64_t live_count(const char* name) noexcept;

// Counts its owner as alive. Movable, so that it can live in containers: a moved-from one counts nothing.
template <HandleClass kClass>
class Live {
 public:
  Live() noexcept { live_count(kClass).fetch_add(1, std::memory_order_relaxed); }
  Live(Live&& other) noexcept : counted_(std::exchange(other.counted_, false)) {}
  Live& operator=(Live&&) = delete;
  ~Live() {
    if (counted_) live_count(kClass).fetch_sub(1, std::memory_order_relaxed);
  }

 private:
  bool counted_ = true;
};

}  // namespace omni

struct omni_status {
  omni_code code;
  std::string message;
  omni::Live<omni::HandleClass::kStatus> live;
};

struct omni_buffer {
  std::string bytes;
  omni::Live<omni::HandleClass::kBuffer> live;
};

struct omni_engine {
  std::unique_ptr<omni::Engine> engine;
  bool loaded = false;  // all weights are there; sequences need that
  std::unordered_map<uint64_t, omni::Live<omni::HandleClass::kSequence>>
      sequences;  // admitted, not yet released
  omni::Live<omni::HandleClass::kEngine> live;
};

struct omni_step {
  std::vector<omni::SequenceResult> results;  // tensors are dense and on the host
  omni::Live<omni::HandleClass::kStep> live;
};

struct omni_recorder {
  std::unique_ptr<omni::Recorder> recorder;
  omni::Live<omni::HandleClass::kRecorder> live;
};
