// A checkpoint folder in the Hugging Face layout: JSON files and memory-mapped safetensors.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/config.h"
#include "runtime/safetensors.h"

namespace omni {

// Opens config.json, and model.safetensors or the shards of model.safetensors.index.json (component folders of
// diffusers come with their own file stem). Only headers are read; the data is mapped, and its pages come in when
// they are touched. Every fault (missing, truncated, overlapping, unknown dtype, a shard that lacks a tensor)
// is an INVALID_ARGUMENT or NOT_FOUND that names file and tensor. Immutable: any thread may read it.
class Checkpoint {
 public:
  static std::shared_ptr<const Checkpoint> open(const std::string& folder);
  ~Checkpoint();

  const std::string& folder() const;
  Config config() const;                                // config.json
  std::string path(std::string_view file) const;        // folder/file
  const TensorInfo* find(std::string_view name) const;  // nullptr if there is none
  // The names that begin with prefix and end there or go on with a dot, in order. All for an empty prefix.
  std::vector<std::string> names_under(std::string_view prefix) const;

  // Brings the tensor's pages in, so that its first use is not slowed by the disk, and so that a file that was cut
  // after it had been opened is an INVALID_ARGUMENT here and no bus error later.
  void populate(const TensorInfo& info) const;
  // Lets go of the tensor's pages after its data was copied elsewhere: the process does not hold the bytes twice.
  // They come back when they are touched again.
  void discard(const TensorInfo& info) const;

  struct Impl;
  explicit Checkpoint(std::unique_ptr<Impl> impl);

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace omni
