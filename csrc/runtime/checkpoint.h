// A checkpoint folder in the Hugging Face layout: JSON files and memory-mapped safetensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/config.h"

namespace omni {

// One tensor as the header of its file describes it.
struct TensorInfo {
  std::string name;
  at::ScalarType dtype;
  std::vector<int64_t> shape;
  std::string file;       // name inside the folder
  const uint8_t* data;    // mapped, valid while the Checkpoint lives; not aligned beyond the element size
  int64_t bytes;
};

// Opens config.json, and model.safetensors or the shards of model.safetensors.index.json (component folders of
// diffusers come with their own file stem). Only headers are read; the data is mapped, and its pages come in when
// they are touched. Every fault (missing, truncated, overlapping, unknown dtype, a shard that lacks a tensor)
// is an INVALID_ARGUMENT or NOT_FOUND that names file and tensor.
class Checkpoint {
 public:
  static std::shared_ptr<const Checkpoint> open(const std::string& folder);
  ~Checkpoint();

  const std::string& folder() const;
  Config config() const;                                        // config.json
  std::string path(std::string_view file) const;                // folder/file
  const TensorInfo* find(std::string_view name) const;          // nullptr if there is none
  std::vector<std::string> names_under(std::string_view prefix) const;

  struct Impl;
  explicit Checkpoint(std::unique_ptr<Impl> impl);

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace omni
