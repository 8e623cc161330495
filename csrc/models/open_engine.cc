// From an engine config to an engine.
#include <memory>
#include <string>
#include <utility>

#include "models/engine.h"
#include "runtime/checkpoint.h"
#include "runtime/config.h"
#include "runtime/device.h"
#include "status.h"

namespace omni {
namespace {

EngineFactory find_factory(const Config& config, const std::string& model) {
  std::string names;
  for (const auto& [name, factory] : engine_table()) {
    if (name == model) return factory;
    names += (names.empty() ? "" : ", ") + name;
  }
  config.fail("\"model\": unknown model \"" + model + "\", expected one of: " + names);
}

}  // namespace

std::unique_ptr<Engine> open_engine(const nlohmann::json& config) {
  const Config fields(&config, "engine config");
  fields.reject_unknown({"model", "checkpoint", "dtype", "device", "max_batch"});
  EngineConfig decoded;
  decoded.model = fields.string("model");
  decoded.dtype = fields.string("dtype", "auto");
  decoded.max_batch = fields.has("max_batch") ? fields.positive("max_batch") : 1;
  const EngineFactory factory = find_factory(fields, decoded.model);
  if (decoded.dtype != "auto" && decoded.dtype != "float32" && decoded.dtype != "bfloat16" &&
      decoded.dtype != "float16") {
    fields.fail("\"dtype\": expected auto, float32, bfloat16 or float16, found \"" + decoded.dtype + "\"");
  }
  const std::string folder = fields.string("checkpoint");
  decoded.device = open_device(fields.string("device", "cpu"));
  decoded.checkpoint = Checkpoint::open(folder);
  return factory(decoded);
}

}  // namespace omni
