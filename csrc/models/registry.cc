// The table of all networks, from models.inc.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "models/engine.h"

namespace omni {

#define OMNI_MODEL(name, factory) std::unique_ptr<Engine> factory(const EngineConfig& config);
#include "models/models.inc"
#undef OMNI_MODEL

const std::vector<std::pair<std::string, EngineFactory>>& engine_table() {
  static const std::vector<std::pair<std::string, EngineFactory>> table = {
#define OMNI_MODEL(name, factory) {name, factory},
#include "models/models.inc"
#undef OMNI_MODEL
  };
  return table;
}

}  // namespace omni
