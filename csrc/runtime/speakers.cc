#include "runtime/speakers.h"

#include <sstream>
#include <utility>

#include "runtime/pickle.h"
#include "status.h"

namespace omni {
namespace {

constexpr const char* kFile = "spk_dict.pt";
constexpr const char* kDefaultName = "Chelsie";

[[noreturn]] void fail(const std::string& where, const std::string& expected, const std::string& found) {
  throw Error(OMNI_INVALID_ARGUMENT, where + ": expected " + expected + ", found " + found);
}

const PickleValue& field(const PickleValue& speaker, const char* key, const std::string& where) {
  const PickleValue* value = speaker.find(key);
  if (value == nullptr)
    fail(where, std::string("a dict with the key \"") + key + "\"", speaker.describe() + " without it");
  return *value;
}

// A tensor [1, ...] of ndim dimensions, none of them empty.
at::Tensor float_tensor(const PickleValue& speaker, const char* key, int64_t ndim, const std::string& where) {
  const PickleValue& value = field(speaker, key, where);
  const at::Tensor* tensor = value.tensor();
  if (tensor == nullptr || tensor->dim() != ndim || tensor->size(0) != 1 || tensor->numel() == 0 ||
      !tensor->is_floating_point()) {
    const std::string expected =
        ndim == 2 ? "a floating-point tensor [1, embedding]" : "a floating-point tensor [1, frames, mels]";
    fail(where + "." + key, expected, value.describe());
  }
  return tensor->to(at::kFloat).contiguous();
}

// A Python integer, or a tensor that holds one.
int64_t token(const PickleValue& speaker, const char* key, const std::string& where) {
  const PickleValue& value = field(speaker, key, where);
  if (const int64_t* number = value.integer()) return *number;
  const at::Tensor* tensor = value.tensor();
  if (tensor != nullptr && tensor->numel() == 1 &&
      at::isIntegralType(tensor->scalar_type(), /*includeBool=*/false)) {
    return tensor->item().toLong();
  }
  fail(where + "." + key, "an integer", value.describe());
}

}  // namespace

std::vector<Speaker> read_speakers(const std::string& path) {
  const PickleFile file(path);
  const auto* entries = file.root().dict();
  if (entries == nullptr || entries->empty()) fail(file.path(), "a dict of speakers", file.root().describe());
  std::vector<Speaker> speakers;
  for (const auto& [key, value] : *entries) {
    if (key.string() == nullptr) fail(file.path(), "names of speakers as keys", key.describe());
    const std::string where = file.path() + ": " + *key.string();
    speakers.push_back({*key.string(), float_tensor(value, "cond", 2, where),
                        float_tensor(value, "ref_mel", 3, where), token(value, "bos_token", where)});
  }
  return speakers;
}

std::vector<Speaker> read_speakers(const Checkpoint& checkpoint) {
  return read_speakers(checkpoint.path(kFile));
}

const Speaker& default_speaker(const std::vector<Speaker>& speakers) {
  for (const Speaker& speaker : speakers) {
    if (speaker.name == kDefaultName) return speaker;
  }
  return speakers.front();
}

const Speaker& find_speaker(const std::vector<Speaker>& speakers, const std::string& name) {
  if (name.empty()) return default_speaker(speakers);
  std::ostringstream known;
  for (const Speaker& speaker : speakers) {
    if (speaker.name == name) return speaker;
    known << (known.tellp() > 0 ? ", " : "") << speaker.name;
  }
  throw Error(OMNI_INVALID_ARGUMENT,
              "speaker \"" + name + "\" is not in the checkpoint, which has: " + known.str());
}

}  // namespace omni
