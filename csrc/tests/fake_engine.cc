// Engines without networks, in place of models/registry.cc: tests of the C interface and of package torch reach every
// path with them. "fake" answers each step with what it was fed; the keys of its params ask for faults.
#include "models/engine.h"

#include <ATen/ATen.h>

#include <map>
#include <memory>
#include <stdexcept>
#include <utility>

#include "runtime/config.h"
#include "status.h"

namespace omni {
namespace {

struct FakeSequence {
  int64_t max_tokens = 0;
  int64_t produced = 0;
  bool wait = false;   // every step reports WAITING until something is fed
  int64_t wanted = 0;  // so many tokens, it says then
  // What its steps do: throw ("error", "torch", "std", "unknown"), fail this sequence alone ("sequence"), or put out a
  // tensor of another layout ("transposed") or of a dtype that the C interface lacks ("dtype").
  std::string fault;
  EngineInput pending;
};

class FakeEngine : public Engine {
 public:
  explicit FakeEngine(const EngineConfig& config) : config_(config) {}

  // Ten bytes a call, thirty in all.
  void load(int64_t& done, int64_t& total) override {
    done_ = std::min<int64_t>(done_ + 10, 30);
    done = done_;
    total = 30;
  }

  nlohmann::json info() const override {
    return {{"model", config_.model},
            {"dtype", config_.dtype},
            {"device", config_.device.str()},
            {"limits", {{"max_batch", config_.max_batch}}}};
  }

  void admit(uint64_t sequence, const nlohmann::json& params) override {
    const Config fields(&params, "sequence params");
    fields.reject_unknown({"max_tokens", "wait", "wanted", "fault"});
    FakeSequence admitted;
    admitted.max_tokens = fields.integer("max_tokens", 3);
    admitted.wait = fields.boolean("wait", false);
    admitted.wanted = fields.integer("wanted", 0);
    admitted.fault = fields.string("fault", "");
    if (admitted.fault == "admit") throw Error(OMNI_RESOURCE_EXHAUSTED, "no room for another sequence");
    sequences_.emplace(sequence, std::move(admitted));
  }

  void feed(uint64_t sequence, EngineInput input) override {
    FakeSequence& fed = sequences_.at(sequence);
    fed.wait = false;
    for (int64_t token : input.tokens) fed.pending.tokens.push_back(token);
    for (NamedTensor& tensor : input.tensors) fed.pending.tensors.push_back(std::move(tensor));
    fed.pending.last = fed.pending.last || input.last;
  }

  std::vector<SequenceResult> step(const std::vector<uint64_t>& sequences) override {
    std::vector<SequenceResult> results;
    for (const uint64_t sequence : sequences) results.push_back(advance(sequence, sequences_.at(sequence)));
    return results;
  }

  void release(uint64_t sequence) override { sequences_.erase(sequence); }

 private:
  // Token number n, and everything that was fed since the step before.
  SequenceResult advance(uint64_t number, FakeSequence& sequence) {
    SequenceResult result;
    result.sequence = number;
    raise(sequence.fault);
    if (sequence.fault == "sequence") {
      result.state = OMNI_SEQUENCE_FAILED;
      result.code = OMNI_RESOURCE_EXHAUSTED;
      result.message = "the sequence is too long";
      return result;
    }
    if (sequence.wait) {
      result.state = OMNI_SEQUENCE_WAITING;
      result.tokens_wanted = sequence.wanted;
      return result;
    }
    result.tokens = std::exchange(sequence.pending.tokens, {});
    result.tensors = std::exchange(sequence.pending.tensors, {});
    result.tokens.push_back(sequence.produced++);
    if (sequence.fault == "transposed") {
      result.tensors.push_back({"transposed", at::arange(6, at::kInt).view({2, 3}).t()});
    } else if (sequence.fault == "dtype") {
      result.tensors.push_back({"complex", at::zeros({1}, at::kComplexFloat)});
    }
    if (sequence.pending.last || sequence.produced == sequence.max_tokens) {
      result.state = OMNI_SEQUENCE_DONE;
      result.finish_reason = sequence.pending.last ? OMNI_FINISH_STOP : OMNI_FINISH_LENGTH;
    }
    return result;
  }

  static void raise(const std::string& fault) {
    if (fault == "error") throw Error(OMNI_CANCELLED, "cancelled by request");
    if (fault == "torch") at::zeros({2, 3}).matmul(at::zeros({2, 3}));
    if (fault == "std") throw std::out_of_range("beyond the end");
    if (fault == "unknown") throw 42;
  }

  EngineConfig config_;
  int64_t done_ = 0;
  std::map<uint64_t, FakeSequence> sequences_;
};

std::unique_ptr<Engine> open_fake(const EngineConfig& config) { return std::make_unique<FakeEngine>(config); }

}  // namespace

const std::vector<std::pair<std::string, EngineFactory>>& engine_table() {
  static const std::vector<std::pair<std::string, EngineFactory>> table = {{"fake", open_fake}};
  return table;
}

}  // namespace omni
