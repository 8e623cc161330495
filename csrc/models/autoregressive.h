// What all engines that write token after token have in common: the table of sequences, the choice between prefill and
// batched decode, sampling, and the request's random generator that travels from stage to stage. A network adds how its
// inputs are made and what else it hands on.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "models/engine.h"
#include "nn/decoder.h"
#include "nn/linear.h"
#include "runtime/config.h"
#include "runtime/kv_cache.h"
#include "runtime/rng.h"
#include "runtime/sampler.h"
#include "runtime/weights.h"

namespace omni {

// The dtype that an engine computes in: what the user asked for or, for "auto", what config.json says (dtype or
// torch_dtype), else that of the named tensor. Throws INVALID_ARGUMENT for anything but the three float types.
at::ScalarType resolve_dtype(const EngineConfig& config, std::string_view tensor);

// [torch thread]
class AutoregressiveEngine : public Engine {
 public:
  ~AutoregressiveEngine() override;

  void load(int64_t& done, int64_t& total) final;
  nlohmann::json info() const final;
  // params: {"sampling":{...}, "seed":N or "rng_from_upstream":true} and the network's own keys.
  void admit(uint64_t sequence, const nlohmann::json& params) final;
  // Takes "rng_state" itself if the sequence has asked for it; all else goes to the network.
  void feed(uint64_t sequence, EngineInput input) final;
  // Prefills run one by one; then all sequences that can write another token do so in one batch. Each gets the bits
  // that it would get alone.
  std::vector<SequenceResult> step(const std::vector<uint64_t>& sequences) final;
  void release(uint64_t sequence) final;

 protected:
  // One request. Networks derive from it for what they keep per request.
  struct Sequence {
    Sequence(const KvCacheShape& shape, int64_t limit) : cache(shape, limit) {}
    virtual ~Sequence() = default;

    SamplingParams sampling;
    std::vector<int64_t> history;  // ids that the repetition penalty sees: prompt, then generated
    KvCache cache;
    int64_t generated = 0;
    int64_t position_delta = 0;  // rotary position of a decoded token minus the number of tokens before it
    bool input_ended = false;    // nothing more will be fed
    bool hands_on_rng = true;    // the next stage goes on drawing where this one stops

   private:
    friend class AutoregressiveEngine;
    uint64_t id = 0;
    Rng rng{0};
    bool rng_known = false;          // seeded, or come from upstream
    bool rng_from_upstream = false;  // to come, or come, as a fed tensor
    bool rng_handed_on = false;
    bool prefilled = false;
    omni_sequence_state state = OMNI_SEQUENCE_READY;
    omni_finish_reason finish = OMNI_FINISH_NONE;  // set before DONE while the generator is awaited
    omni_code code = OMNI_OK;
    std::string message;
  };

  // What a sequence's next step needs.
  enum class Need {
    kNothing,  // it can run
    kInput,    // something is to be fed first
    kNoStep,   // there is nothing to write: the sequence ends as it is
  };

  // dtype: what the network computes in. name begins the names of module scopes: "thinker".
  AutoregressiveEngine(const EngineConfig& config, at::ScalarType dtype, std::string name);

  // Builds the decoder under path and the output layer; a constructor calls it once.
  void build(const WeightPath& path, const DecoderConfig& decoder, std::unique_ptr<Linear> head);

  // The keys of params besides the common ones.
  virtual std::vector<std::string_view> param_keys() const = 0;
  // A sequence with its prompt; sampling is parsed already. Throws for bad params.
  virtual std::unique_ptr<Sequence> create(const Config& params, SamplingParams sampling) const = 0;
  // Fed input without rng_state; input.last is noted already. Throws for what the network does not know.
  virtual void accept(Sequence& sequence, const EngineInput& input) = 0;
  virtual Need need(const Sequence& sequence) const = 0;
  // Decoder inputs of the whole prompt [tokens, hidden].
  virtual at::Tensor prefill_inputs(Sequence& sequence) = 0;
  // Decoder inputs of the next token of each [batch, hidden], every row as if it were alone.
  virtual at::Tensor decode_inputs(c10::ArrayRef<Sequence*> sequences) = 0;
  // Adds what the network hands on besides tokens. inputs and hidden: the rows [n, hidden] that this step has added to
  // the sequence, before the first layer and after the final norm.
  virtual void emit(const Sequence& sequence, const at::Tensor& inputs, const at::Tensor& hidden,
                    SequenceResult& result) const = 0;
  // Whether a stop token is part of the output.
  virtual bool shows_stop_token() const = 0;
  virtual nlohmann::json network_info() const = 0;

  Weights& weights() { return weights_; }
  const Weights& weights() const { return weights_; }
  at::ScalarType dtype() const { return dtype_; }
  Decoder& decoder() { return *decoder_; }
  const Decoder& decoder() const { return *decoder_; }

 private:
  Sequence& find(uint64_t id) const;
  void parse_rng(const Config& params, Sequence& sequence) const;
  bool awaits_rng(const Sequence& sequence) const;

  // Each of these turns what goes wrong with one sequence into its result.
  bool settle(Sequence& sequence, SequenceResult& result);
  void prefill(Sequence& sequence, SequenceResult& result);
  void decode(const std::vector<Sequence*>& sequences, const std::vector<SequenceResult*>& results);

  void write_token(Sequence& sequence, const at::Tensor& logits, SequenceResult& result);
  void finish(Sequence& sequence, omni_finish_reason reason, SequenceResult& result);
  void report(Sequence& sequence, omni_sequence_state state, SequenceResult& result);
  void fail(Sequence& sequence, SequenceResult& result);

  std::string model_;
  std::string name_;
  at::ScalarType dtype_;
  Weights weights_;
  std::unique_ptr<Decoder> decoder_;
  std::unique_ptr<Linear> head_;
  std::string head_scope_;
  std::map<uint64_t, std::unique_ptr<Sequence>> sequences_;
};

}  // namespace omni
