// What every network offers to the C functions, and the table of all networks.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "omni.h"
#include "runtime/checkpoint.h"

namespace omni {

struct NamedTensor {
  std::string name;
  at::Tensor tensor;
};

// Input that is fed to a sequence while it runs. Tensors are dense CPU tensors that own their memory.
struct EngineInput {
  std::vector<int64_t> tokens;
  std::vector<NamedTensor> tensors;
  bool last = false;
};

// What one step did for one sequence. Output tensors may be on any device and of any layout: the ABI copies
// them to dense host memory.
struct SequenceResult {
  uint64_t sequence = 0;
  omni_sequence_state state = OMNI_SEQUENCE_READY;
  omni_finish_reason finish_reason = OMNI_FINISH_NONE;
  omni_code code = OMNI_OK;
  std::string message;
  std::vector<int64_t> tokens;
  std::vector<NamedTensor> tensors;
  // When WAITING: steps can do nothing before so many tokens more have come, or the last input. 0: unknown.
  int64_t tokens_wanted = 0;
};

// Everything that omni_engine_open was given, decoded and checked.
struct EngineConfig {
  std::string model;  // "qwen2_5_omni.thinker"
  std::shared_ptr<const Checkpoint> checkpoint;
  std::string dtype;  // "auto", "float32", "bfloat16", "float16"
  at::Device device = at::kCPU;
  int64_t max_batch = 1;
};

// One network with its weights and its sequences. All calls come from the torch thread, in inference mode. A call
// that throws leaves the engine and its other sequences as they were.
class Engine {
 public:
  virtual ~Engine() = default;

  // Loads the next part of the weights; done equals total when loading has ended.
  virtual void load(int64_t& done, int64_t& total) = 0;
  virtual nlohmann::json info() const = 0;
  virtual void admit(uint64_t sequence, const nlohmann::json& params) = 0;
  virtual void feed(uint64_t sequence, EngineInput input) = 0;
  // One result per entry of sequences, in their order. An unknown sequence throws NOT_FOUND before any is advanced.
  virtual std::vector<SequenceResult> step(const std::vector<uint64_t>& sequences) = 0;
  virtual void release(uint64_t sequence) = 0;
};

using EngineFactory = std::unique_ptr<Engine> (*)(const EngineConfig& config);

// Decodes and checks config (see omni_engine_open), opens checkpoint and device, and calls the model's factory.
std::unique_ptr<Engine> open_engine(const nlohmann::json& config);

// All networks, from models.inc.
const std::vector<std::pair<std::string, EngineFactory>>& engine_table();

}  // namespace omni
