// Rotary position embedding of the text models: halves of a head are rotated against each other by angles that come
// from three position axes (time, height, width), each of which owns some of the frequencies.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "runtime/config.h"

namespace omni {

struct RopeConfig {
  int64_t head_dim;
  double theta;
  std::vector<int64_t>
      sections;  // frequencies in order; section i belongs to axis i % 3; they sum to head_dim / 2

  // Reads a text model's object in both spellings: rope_parameters{rope_theta, rope_type, mrope_section}, and
  // rope_theta beside rope_scaling{type or rope_type, mrope_section}. INVALID_ARGUMENT if the sections do not cover
  // the head; UNIMPLEMENTED for a kind of scaling that this model family does not use.
  static RopeConfig parse(const Config& model, int64_t head_dim);
};

// Cosines and sines for some tokens: float32 [tokens, head_dim / 2] on the CPU, rounded to the model's dtype. The second
// half of a head uses the same angles as the first.
struct RopeRows {
  at::Tensor cosines;
  at::Tensor sines;

  // The same where the layers are: once for a step, not once for a layer.
  RopeRows to(at::Device device) const { return {cosines.to(device), sines.to(device)}; }
};

// Angles by position, computed once. [torch thread]
class Rope {
 public:
  Rope(const RopeConfig& config, at::ScalarType dtype);

  // positions: int64 [3, tokens] on the CPU, none negative.
  RopeRows rows(const at::Tensor& positions);

 private:
  void grow(int64_t positions);

  int64_t half_;
  at::ScalarType dtype_;
  at::Tensor inverse_frequencies_;  // float32 [half]
  std::vector<int64_t> axis_;       // of every frequency
  int64_t known_ = 0;               // positions in the tables
  std::vector<float> cosines_;      // [known, half]
  std::vector<float> sines_;
};

}  // namespace omni
