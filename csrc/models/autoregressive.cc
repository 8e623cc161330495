// Continuous batching for one decoder.
#include "models/autoregressive.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <set>
#include <utility>

#include "nn/cpu/kernels.h"
#include "profiler/scope.h"
#include "status.h"

namespace omni {
namespace {

constexpr const char* kRngState = "rng_state";

at::ScalarType parse_dtype(const std::string& name, const std::string& where) {
  if (name == "float32") return at::kFloat;
  if (name == "bfloat16") return at::kBFloat16;
  if (name == "float16") return at::kHalf;
  throw Error(OMNI_INVALID_ARGUMENT,
              where + ": expected \"float32\", \"bfloat16\" or \"float16\", found \"" + name + "\"");
}

std::string dtype_text(at::ScalarType dtype) {
  if (dtype == at::kBFloat16) return "bfloat16";
  return dtype == at::kHalf ? "float16" : "float32";
}

// The same position on all axes for each token, from 0 on.
at::Tensor text_positions(int64_t tokens) {
  return at::arange(tokens, at::kLong).unsqueeze(0).repeat({3, 1});
}

}  // namespace

at::ScalarType resolve_dtype(const EngineConfig& config, std::string_view tensor) {
  if (config.dtype != "auto") return parse_dtype(config.dtype, "\"dtype\"");
  const Config file = config.checkpoint->config();
  for (const char* key : {"dtype", "torch_dtype"}) {
    if (file.has(key)) return parse_dtype(file.string(key), file.path() + ": \"" + key + "\"");
  }
  const TensorInfo* info = config.checkpoint->find(tensor);
  return info == nullptr || !at::isReducedFloatingType(info->dtype) ? at::kFloat : info->dtype;
}

AutoregressiveEngine::AutoregressiveEngine(const EngineConfig& config, at::ScalarType dtype, std::string name)
    : model_(config.model),
      name_(std::move(name)),
      dtype_(dtype),
      weights_(config.checkpoint, config.device) {}

AutoregressiveEngine::~AutoregressiveEngine() = default;

void AutoregressiveEngine::build(const WeightPath& path, const DecoderConfig& decoder,
                                 std::unique_ptr<Linear> head) {
  decoder_ = std::make_unique<Decoder>(path, decoder, name_);
  head_ = std::move(head);
  head_scope_ = name_ + ".lm_head";
}

void AutoregressiveEngine::load(int64_t& done, int64_t& total) {
  weights_.load_next();
  done = weights_.bytes_done();
  total = weights_.bytes_total();
}

nlohmann::json AutoregressiveEngine::info() const {
  const DecoderConfig& config = decoder_->config();
  nlohmann::json info = {
      {"model", model_},
      {"dtype", dtype_text(dtype_)},
      {"device", weights_.device().str()},
      {"kernels", weights_.device().is_cpu() ? cpu::kernels().name : "libtorch"},
      {"parameters", weights_.parameters()},
      {"weight_bytes", weights_.bytes_total()},
      {"unused_tensors", weights_.unused_under(name_)},
      {"vocab_size", config.vocab_size},
      {"hidden_size", config.hidden},
      {"max_positions", config.max_positions},
  };
  info.update(network_info());
  return info;
}

// ---- sequences --------------------------------------------------------------------------------------------------

AutoregressiveEngine::Sequence& AutoregressiveEngine::find(uint64_t id) const {
  const auto it = sequences_.find(id);
  if (it == sequences_.end()) {
    throw Error(OMNI_NOT_FOUND, model_ + ": there is no sequence " + std::to_string(id));
  }
  return *it->second;
}

void AutoregressiveEngine::parse_rng(const Config& params, Sequence& sequence) const {
  sequence.rng_from_upstream = params.boolean("rng_from_upstream", false);
  if (sequence.rng_from_upstream && params.has("seed"))
    params.fail("\"seed\" and \"rng_from_upstream\" exclude each other");
  if (params.has("seed")) {
    // Python takes any 64 bits, signed or not.
    const nlohmann::json& seed = params.json().at("seed");
    const bool large = seed.is_number_unsigned();
    sequence.rng = Rng(large ? seed.get<uint64_t>() : static_cast<uint64_t>(params.integer("seed")));
    sequence.rng_known = true;
  } else if (!sequence.rng_from_upstream && !sequence.sampling.greedy()) {
    params.fail("a sampled sequence needs \"seed\" or \"rng_from_upstream\"");
  }
}

void AutoregressiveEngine::admit(uint64_t id, const nlohmann::json& params_json) {
  const Config params(&params_json, model_ + ": sequence " + std::to_string(id));
  if (sequences_.count(id) != 0) params.fail("this number is in use");
  std::vector<std::string_view> keys = param_keys();
  keys.insert(keys.end(), {"sampling", "seed", "rng_from_upstream"});
  params.reject_unknown(keys);
  std::unique_ptr<Sequence> sequence = create(params, SamplingParams::parse(params.object("sampling")));
  parse_rng(params, *sequence);
  sequence->id = id;
  sequences_.emplace(id, std::move(sequence));
}

void AutoregressiveEngine::feed(uint64_t id, EngineInput input) {
  Sequence& sequence = find(id);
  const std::string where = model_ + ": sequence " + std::to_string(id) + ": ";
  if (sequence.state == OMNI_SEQUENCE_DONE || sequence.state == OMNI_SEQUENCE_FAILED) return;
  if (sequence.input_ended) throw Error(OMNI_FAILED_PRECONDITION, where + "input after the last one");
  const auto is_rng = [](const NamedTensor& tensor) { return tensor.name == kRngState; };
  const auto state = std::find_if(input.tensors.begin(), input.tensors.end(), is_rng);
  std::unique_ptr<Rng> rng;
  if (state != input.tensors.end()) {
    // A sequence with a seed of its own takes no notice of the generator, which every upstream stage hands on.
    if (sequence.rng_from_upstream) {
      if (sequence.rng_known) throw Error(OMNI_INVALID_ARGUMENT, where + "\"rng_state\" came twice");
      rng = std::make_unique<Rng>(state->tensor);
    }
    input.tensors.erase(state);
  }
  if (input.last && rng == nullptr && awaits_rng(sequence)) {
    throw Error(OMNI_FAILED_PRECONDITION,
                where + "the last input came, and no \"rng_state\" before or with it");
  }
  accept(sequence, input);
  sequence.input_ended = input.last;
  if (rng != nullptr) {
    sequence.rng = *rng;
    sequence.rng_known = true;
  }
}

void AutoregressiveEngine::release(uint64_t id) {
  find(id);
  sequences_.erase(id);
}

// ---- steps ------------------------------------------------------------------------------------------------------

std::vector<SequenceResult> AutoregressiveEngine::step(const std::vector<uint64_t>& ids) {
  std::vector<Sequence*> all;
  std::set<uint64_t> distinct;
  for (const uint64_t id : ids) {
    all.push_back(&find(id));
    if (!distinct.insert(id).second) {
      throw Error(OMNI_INVALID_ARGUMENT,
                  model_ + ": sequence " + std::to_string(id) + " is named twice in one step");
    }
  }
  std::vector<SequenceResult> results(ids.size());
  std::vector<Sequence*> decoding;
  std::vector<SequenceResult*> decoding_results;
  for (size_t i = 0; i < all.size(); ++i) {
    results[i].sequence = ids[i];
    if (settle(*all[i], results[i])) continue;
    if (!all[i]->prefilled) {
      prefill(*all[i], results[i]);
    } else {
      decoding.push_back(all[i]);
      decoding_results.push_back(&results[i]);
    }
  }
  if (!decoding.empty()) decode(decoding, decoding_results);
  return results;
}

bool AutoregressiveEngine::awaits_rng(const Sequence& sequence) const {
  return sequence.rng_from_upstream && !sequence.rng_known;
}

// Answers for a sequence that no forward pass is needed for.
bool AutoregressiveEngine::settle(Sequence& sequence, SequenceResult& result) {
  if (sequence.state == OMNI_SEQUENCE_DONE || sequence.state == OMNI_SEQUENCE_FAILED) {
    report(sequence, sequence.state, result);
    return true;
  }
  if (sequence.finish != OMNI_FINISH_NONE) {
    finish(sequence, sequence.finish, result);
    return true;
  }
  const Need next = need(sequence);
  if (next == Need::kNoStep) {
    finish(sequence, OMNI_FINISH_STOP, result);
    return true;
  }
  if (next == Need::kInput || (awaits_rng(sequence) && !sequence.sampling.greedy())) {
    report(sequence, OMNI_SEQUENCE_WAITING, result);
    return true;
  }
  return false;
}

void AutoregressiveEngine::prefill(Sequence& sequence, SequenceResult& result) {
  try {
    const at::Tensor inputs = prefill_inputs(sequence);
    const at::Tensor hidden = decoder_->prefill(inputs, text_positions(inputs.size(0)), sequence.cache);
    sequence.prefilled = true;
    at::Tensor logits;
    {
      const Scope scope(head_scope_);
      logits = linear_decode(hidden.narrow(0, hidden.size(0) - 1, 1), *head_, at::Tensor());
    }
    emit(sequence, inputs, hidden, result);
    write_token(sequence, logits[0], result);
  } catch (...) {
    fail(sequence, result);
  }
}

void AutoregressiveEngine::decode(const std::vector<Sequence*>& sequences,
                                  const std::vector<SequenceResult*>& results) {
  std::vector<Sequence*> batch;
  std::vector<SequenceResult*> batch_results;
  std::vector<DecodeRow> rows;
  for (size_t i = 0; i < sequences.size(); ++i) {
    KvCache& cache = sequences[i]->cache;
    try {
      cache.reserve(cache.length() + 1);
    } catch (...) {
      fail(*sequences[i], *results[i]);
      continue;
    }
    const int64_t position = cache.length() + sequences[i]->position_delta;
    batch.push_back(sequences[i]);
    batch_results.push_back(results[i]);
    rows.push_back({&cache, {position, position, position}});
  }
  if (batch.empty()) return;
  at::Tensor inputs;
  at::Tensor hidden;
  at::Tensor logits;
  try {
    inputs = decode_inputs(batch);
    hidden = decoder_->decode(inputs, rows);
    const Scope scope(head_scope_);
    logits = linear_decode(hidden, *head_, at::Tensor());
  } catch (...) {
    for (size_t i = 0; i < batch.size(); ++i) fail(*batch[i], *batch_results[i]);
    return;
  }
  for (size_t i = 0; i < batch.size(); ++i) {
    const auto row = static_cast<int64_t>(i);
    try {
      emit(*batch[i], inputs.narrow(0, row, 1), hidden.narrow(0, row, 1), *batch_results[i]);
      write_token(*batch[i], logits[row], *batch_results[i]);
    } catch (...) {
      fail(*batch[i], *batch_results[i]);
    }
  }
}

// ---- results ----------------------------------------------------------------------------------------------------

// logits [V] in the model's dtype.
void AutoregressiveEngine::write_token(Sequence& sequence, const at::Tensor& logits, SequenceResult& result) {
  const int64_t token =
      sample(logits.to(at::kFloat), sequence.sampling, sequence.history, sequence.generated, sequence.rng);
  const bool stop = sequence.sampling.stops_at(token);
  sequence.history.push_back(token);
  ++sequence.generated;
  if (!stop || shows_stop_token()) result.tokens.push_back(token);
  const bool full =
      sequence.generated >= sequence.sampling.max_tokens || sequence.cache.length() >= sequence.cache.limit();
  if (stop || full) {
    finish(sequence, stop ? OMNI_FINISH_STOP : OMNI_FINISH_LENGTH, result);
    return;
  }
  report(sequence, need(sequence) == Need::kInput ? OMNI_SEQUENCE_WAITING : OMNI_SEQUENCE_READY, result);
}

// Ends the sequence or, if it has a generator to hand on that has not come yet, lets it wait for that.
void AutoregressiveEngine::finish(Sequence& sequence, omni_finish_reason reason, SequenceResult& result) {
  sequence.finish = reason;
  sequence.cache = KvCache(decoder_->cache_shape(), sequence.cache.limit());
  const bool waits = sequence.hands_on_rng && awaits_rng(sequence);
  report(sequence, waits ? OMNI_SEQUENCE_WAITING : OMNI_SEQUENCE_DONE, result);
}

void AutoregressiveEngine::report(Sequence& sequence, omni_sequence_state state, SequenceResult& result) {
  sequence.state = state;
  result.state = state;
  if (state == OMNI_SEQUENCE_DONE) result.finish_reason = sequence.finish;
  if (state == OMNI_SEQUENCE_FAILED) {
    result.code = sequence.code;
    result.message = sequence.message;
    return;
  }
  // A greedy stage never draws: the next one may go on at once.
  const bool drawing_ended = sequence.sampling.greedy() || state == OMNI_SEQUENCE_DONE;
  if (sequence.hands_on_rng && sequence.rng_known && drawing_ended && !sequence.rng_handed_on) {
    result.tensors.push_back({kRngState, sequence.rng.state()});
    sequence.rng_handed_on = true;
  }
}

// Call in a catch block only.
void AutoregressiveEngine::fail(Sequence& sequence, SequenceResult& result) {
  omni_status* status = status_of_current_exception();
  sequence.code = static_cast<omni_code>(omni_status_code(status));
  sequence.message =
      model_ + ": sequence " + std::to_string(sequence.id) + ": " + omni_status_message(status, nullptr);
  omni_status_free(status);
  sequence.cache = KvCache(decoder_->cache_shape(), sequence.cache.limit());
  result.tokens.clear();
  result.tensors.clear();
  report(sequence, OMNI_SEQUENCE_FAILED, result);
}

}  // namespace omni
