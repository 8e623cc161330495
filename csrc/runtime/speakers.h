// The voices of a speech model: spk_dict.pt beside its weights.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/checkpoint.h"

namespace omni {

struct Speaker {
  std::string name;
  at::Tensor cond;     // float32 [1, embedding]
  at::Tensor ref_mel;  // float32 [1, frames, mels]
  int64_t bos_token;   // in the thinker's vocabulary
};

// All speakers of a file in its order, at least one.
std::vector<Speaker> read_speakers(const std::string& path);
// Those of the checkpoint's spk_dict.pt.
std::vector<Speaker> read_speakers(const Checkpoint& checkpoint);

// The speaker that a request gets which names none: "Chelsie", else the first.
const Speaker& default_speaker(const std::vector<Speaker>& speakers);

// The speaker of that name, or the default one for an empty name. INVALID_ARGUMENT lists the names there are.
const Speaker& find_speaker(const std::vector<Speaker>& speakers, const std::string& name);

}  // namespace omni
