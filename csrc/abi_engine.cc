// C functions of tensors, engines and steps.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <unordered_set>
#include <vector>

#include "abi.h"
#include "models/engine.h"
#include "runtime/torch_thread.h"

using omni::guard;
using omni::require;

namespace omni {
namespace {

struct DTypePair {
  omni_dtype c;
  at::ScalarType torch;
};

constexpr DTypePair kDTypes[] = {
    {OMNI_FLOAT32, at::kFloat}, {OMNI_FLOAT16, at::kHalf}, {OMNI_BFLOAT16, at::kBFloat16},
    {OMNI_INT64, at::kLong},    {OMNI_INT32, at::kInt},    {OMNI_UINT8, at::kByte},
};

at::ScalarType torch_dtype(int32_t dtype) {
  for (const DTypePair& pair : kDTypes) {
    if (pair.c == dtype) return pair.torch;
  }
  throw Error(OMNI_INVALID_ARGUMENT, "unknown omni_dtype " + std::to_string(dtype));
}

omni_dtype c_dtype(const at::Tensor& tensor, const std::string& name) {
  for (const DTypePair& pair : kDTypes) {
    if (pair.torch == tensor.scalar_type()) return pair.c;
  }
  throw Error(OMNI_INTERNAL, "tensor \"" + name + "\" has a dtype that omni_dtype lacks: " +
                                 c10::toString(tensor.scalar_type()));
}

// Runs body on the torch thread in inference mode, which is where engines live.
template <typename Body>
omni_status* on_torch_thread(Body&& body) noexcept {
  return guard([&] {
    require_torch_thread();
    const c10::InferenceMode mode;
    body();
  });
}

void require_admitted(const omni_engine& engine, uint64_t sequence) {
  if (engine.sequences.find(sequence) == engine.sequences.end()) {
    throw Error(OMNI_NOT_FOUND, "no sequence " + std::to_string(sequence));
  }
}

// A copy of what the caller describes, after its numbers were checked against each other.
NamedTensor copy_tensor(const omni_tensor& from) {
  require(from.name != nullptr && from.name_size > 0, "a tensor has no name");
  const std::string name(from.name, from.name_size);
  const auto fail = [&](const std::string& message) {
    throw Error(OMNI_INVALID_ARGUMENT, "tensor \"" + name + "\": " + message);
  };
  const at::ScalarType dtype = torch_dtype(from.dtype);
  if (from.ndim < 0 || from.ndim > OMNI_MAX_DIMS)
    fail(std::to_string(from.ndim) + " dimensions, 0 to 8 are possible");
  auto bytes = static_cast<int64_t>(c10::elementSize(dtype));
  const std::vector<int64_t> shape(from.dims, from.dims + from.ndim);
  for (const int64_t dim : shape) {
    if (dim < 0 || __builtin_mul_overflow(bytes, dim, &bytes)) fail("bad dimension " + std::to_string(dim));
  }
  if (static_cast<uint64_t>(bytes) != from.data_size) {
    fail("its shape takes " + std::to_string(bytes) + " bytes, data_size is " +
         std::to_string(from.data_size));
  }
  if (bytes > 0 && from.data == nullptr) fail("data is NULL");
  at::Tensor tensor = at::empty(shape, at::TensorOptions().dtype(dtype));
  if (bytes > 0) std::memcpy(tensor.data_ptr(), from.data, from.data_size);
  return {name, tensor};
}

EngineInput copy_input(const omni_input& from) {
  require(from.tokens != nullptr || from.tokens_count == 0, "omni_input.tokens is NULL");
  require(from.tensors != nullptr || from.tensors_count == 0, "omni_input.tensors is NULL");
  EngineInput input;
  input.last = from.last != 0;
  input.tokens.assign(from.tokens, from.tokens + from.tokens_count);
  // Elements lie as far apart as the caller's struct is large.
  const size_t stride = from.tensors_count == 0 ? 0 : from.tensors->struct_size;
  const auto* at = reinterpret_cast<const char*>(from.tensors);
  for (size_t i = 0; i < from.tensors_count; ++i, at += stride) {
    input.tensors.push_back(copy_tensor(read_struct<omni_tensor>(at, "omni_tensor")));
  }
  return input;
}

std::vector<uint64_t> copy_sequences(const omni_engine& engine, const uint64_t* sequences, size_t count) {
  require(sequences != nullptr || count == 0, "omni_engine_step: sequences is NULL");
  std::unordered_set<uint64_t> seen;
  for (size_t i = 0; i < count; ++i) {
    require_admitted(engine, sequences[i]);
    if (!seen.insert(sequences[i]).second) {
      throw Error(OMNI_INVALID_ARGUMENT, "sequence " + std::to_string(sequences[i]) + " is listed twice");
    }
  }
  return {sequences, sequences + count};
}

// A copy that is dense and on the host. name says whose it is in errors.
at::Tensor dense_copy(const at::Tensor& tensor, const std::string& name) {
  c_dtype(tensor, name);
  if (tensor.dim() > OMNI_MAX_DIMS) {
    throw Error(OMNI_INTERNAL, "tensor \"" + name + "\" has " + std::to_string(tensor.dim()) + " dimensions");
  }
  return tensor.is_cpu() ? tensor.clone(at::MemoryFormat::Contiguous) : tensor.cpu().contiguous();
}

// What the engine keeps may change with its next step: the results get copies.
void detach_outputs(std::vector<SequenceResult>& results) {
  for (SequenceResult& result : results) {
    for (NamedTensor& output : result.tensors) output.tensor = dense_copy(output.tensor, output.name);
  }
}

const SequenceResult& result_at(const omni_step* step, size_t index) {
  require(step != nullptr, "step is NULL");
  if (index >= step->results.size()) {
    throw Error(OMNI_INVALID_ARGUMENT, "result " + std::to_string(index) + " of a step of " +
                                           std::to_string(step->results.size()) + " sequences");
  }
  return step->results[index];
}

// The fields of omni_tensor for a dense tensor on the host, which must outlive them.
omni_tensor describe(const at::Tensor& tensor, const std::string& name) {
  omni_tensor view = {};
  view.dtype = c_dtype(tensor, name);
  view.name = name.data();
  view.name_size = name.size();
  view.data = tensor.const_data_ptr();
  view.data_size = tensor.nbytes();
  view.ndim = static_cast<int32_t>(tensor.dim());
  std::copy(tensor.sizes().begin(), tensor.sizes().end(), view.dims);
  return view;
}

}  // namespace
}  // namespace omni

omni_status* omni_tensor_copy(const void* at_tensor_borrow, omni_tensor* out, omni_buffer** bytes) {
  return guard([&] {
    require(at_tensor_borrow != nullptr && out != nullptr && bytes != nullptr,
            "omni_tensor_copy: NULL argument");
    const auto* tensor = static_cast<const at::Tensor*>(at_tensor_borrow);
    require(tensor->defined(), "omni_tensor_copy: the tensor is undefined");
    const at::Tensor dense = omni::dense_copy(tensor->detach(), "");
    auto buffer = std::make_unique<omni_buffer>();
    buffer->bytes.assign(static_cast<const char*>(dense.const_data_ptr()), dense.nbytes());
    omni_tensor view = omni::describe(dense, "");
    view.name = "";
    view.data = buffer->bytes.data();
    omni::write_struct(view, out, "omni_tensor");
    *bytes = buffer.release();
  });
}

omni_status* omni_engine_models(omni_buffer** out) {
  return guard([&] {
    require(out != nullptr, "omni_engine_models: out is NULL");
    nlohmann::json names = nlohmann::json::array();
    for (const auto& [name, factory] : omni::engine_table()) names.push_back(name);
    omni::set_json(out, names);
  });
}

omni_status* omni_engine_open(const char* config, size_t config_size, omni_engine** out) {
  return omni::on_torch_thread([&] {
    require(out != nullptr, "omni_engine_open: out is NULL");
    auto handle = std::make_unique<omni_engine>();
    handle->engine = omni::open_engine(omni::parse_argument(config, config_size, "engine config"));
    *out = handle.release();
  });
}

omni_status* omni_engine_load(omni_engine* engine, int64_t* done, int64_t* total) {
  return omni::on_torch_thread([&] {
    require(engine != nullptr && done != nullptr && total != nullptr, "omni_engine_load: NULL argument");
    int64_t loaded = 0;
    int64_t all = 0;
    engine->engine->load(loaded, all);
    engine->loaded = loaded == all;
    *done = loaded;
    *total = all;
  });
}

omni_status* omni_engine_info(const omni_engine* engine, omni_buffer** out) {
  return guard([&] {
    require(engine != nullptr && out != nullptr, "omni_engine_info: NULL argument");
    omni::set_json(out, engine->engine->info());
  });
}

omni_status* omni_engine_admit(omni_engine* engine, uint64_t sequence, const char* params,
                               size_t params_size) {
  return omni::on_torch_thread([&] {
    require(engine != nullptr, "omni_engine_admit: engine is NULL");
    if (!engine->loaded) throw omni::Error(OMNI_FAILED_PRECONDITION, "the weights are not loaded yet");
    const nlohmann::json document = omni::parse_argument(params, params_size, "sequence params");
    const auto [it, added] = engine->sequences.try_emplace(sequence);
    if (!added)
      throw omni::Error(OMNI_INVALID_ARGUMENT, "sequence " + std::to_string(sequence) + " is in use");
    try {
      engine->engine->admit(sequence, document);
    } catch (...) {
      engine->sequences.erase(it);
      throw;
    }
  });
}

omni_status* omni_engine_feed(omni_engine* engine, uint64_t sequence, const omni_input* input) {
  return omni::on_torch_thread([&] {
    require(engine != nullptr && input != nullptr, "omni_engine_feed: NULL argument");
    omni::require_admitted(*engine, sequence);
    engine->engine->feed(sequence, omni::copy_input(omni::read_struct<omni_input>(input, "omni_input")));
  });
}

omni_status* omni_engine_step(omni_engine* engine, const uint64_t* sequences, size_t count, omni_step** out) {
  return omni::on_torch_thread([&] {
    require(engine != nullptr && out != nullptr, "omni_engine_step: NULL argument");
    const std::vector<uint64_t> chosen = omni::copy_sequences(*engine, sequences, count);
    auto step = std::make_unique<omni_step>();
    step->results = engine->engine->step(chosen);
    if (step->results.size() != count) throw omni::Error(OMNI_INTERNAL, "the engine left out a sequence");
    omni::detach_outputs(step->results);
    *out = step.release();
  });
}

omni_status* omni_engine_release(omni_engine* engine, uint64_t sequence) {
  return omni::on_torch_thread([&] {
    require(engine != nullptr, "omni_engine_release: engine is NULL");
    omni::require_admitted(*engine, sequence);
    engine->engine->release(sequence);
    engine->sequences.erase(sequence);
  });
}

void omni_engine_free(omni_engine* engine) { delete engine; }

size_t omni_step_count(const omni_step* step) { return step == nullptr ? 0 : step->results.size(); }

omni_status* omni_step_result(const omni_step* step, size_t index, omni_result* out) {
  return guard([&] {
    require(out != nullptr, "omni_step_result: out is NULL");
    const omni::SequenceResult& result = omni::result_at(step, index);
    omni_result view = {};
    view.state = result.state;
    view.sequence = result.sequence;
    view.finish_reason = result.finish_reason;
    view.code = result.code;
    view.message = result.message.data();
    view.message_size = result.message.size();
    view.tokens = result.tokens.data();
    view.tokens_count = result.tokens.size();
    view.tensors_count = result.tensors.size();
    view.tokens_wanted = result.tokens_wanted;
    omni::write_struct(view, out, "omni_result");
  });
}

omni_status* omni_step_tensor(const omni_step* step, size_t index, size_t tensor, omni_tensor* out) {
  return guard([&] {
    require(out != nullptr, "omni_step_tensor: out is NULL");
    const omni::SequenceResult& result = omni::result_at(step, index);
    if (tensor >= result.tensors.size()) {
      throw omni::Error(OMNI_INVALID_ARGUMENT, "tensor " + std::to_string(tensor) + " of a result with " +
                                                   std::to_string(result.tensors.size()));
    }
    const omni::NamedTensor& output = result.tensors[tensor];
    omni::write_struct(omni::describe(output.tensor, output.name), out, "omni_tensor");
  });
}

void omni_step_free(omni_step* step) { delete step; }
