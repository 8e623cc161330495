// Rotary tables for three position axes.
#include "nn/rope.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "status.h"

namespace omni {
namespace {

constexpr double kDefaultTheta = 1e6;
constexpr int64_t kAxes = 3;
const std::vector<int64_t>& default_sections() {
  static const std::vector<int64_t> sections = {16, 24, 24};
  return sections;
}

std::string list_text(const std::vector<int64_t>& values) {
  std::string text = "[";
  for (const int64_t value : values) text += (text.size() > 1 ? ", " : "") + std::to_string(value);
  return text + "]";
}

// The object that holds kind and sections; the model's own if it has neither spelling.
Config scaling_object(const Config& model) {
  if (const auto parameters = model.maybe_object("rope_parameters")) return *parameters;
  if (const auto scaling = model.maybe_object("rope_scaling")) return *scaling;
  return model;
}

}  // namespace

RopeConfig RopeConfig::parse(const Config& model, int64_t head_dim) {
  const Config scaling = scaling_object(model);
  const std::string kind = scaling.string("rope_type", scaling.string("type", "default"));
  if (kind != "default" && kind != "mrope") {
    throw Error(OMNI_UNIMPLEMENTED, scaling.path() +
                                        ": \"rope_type\": expected \"default\" or \"mrope\", found \"" +
                                        kind + "\", which is not supported");
  }
  RopeConfig config;
  config.head_dim = head_dim;
  config.theta = scaling.number("rope_theta", model.number("rope_theta", kDefaultTheta));
  config.sections = scaling.integers("mrope_section", default_sections());
  if (!(config.theta > 0))
    scaling.fail("\"rope_theta\": expected a number > 0, found " + std::to_string(config.theta));
  int64_t sum = 0;
  bool negative = false;
  for (const int64_t section : config.sections) {
    sum += section;
    negative = negative || section < 0;
  }
  if (negative || sum != head_dim / 2) {
    scaling.fail("\"mrope_section\": expected parts that sum to half of the head dimension " +
                 std::to_string(head_dim) + ", found " + list_text(config.sections));
  }
  return config;
}

Rope::Rope(const RopeConfig& config, at::ScalarType dtype) : half_(config.head_dim / 2), dtype_(dtype) {
  // In fp32 with torch's own pow: the angles are to equal the reference's, also far from the start.
  const at::Tensor exponents = at::arange(0, config.head_dim, 2, at::kFloat) / config.head_dim;
  inverse_frequencies_ = at::pow(config.theta, exponents).reciprocal();
  for (size_t i = 0; i < config.sections.size(); ++i) {
    axis_.insert(axis_.end(), static_cast<size_t>(config.sections[i]), static_cast<int64_t>(i) % kAxes);
  }
}

void Rope::grow(int64_t positions) {
  constexpr int64_t kFirst = 256;
  if (positions <= known_) return;
  const int64_t target = std::max({positions, 2 * known_, kFirst});
  const float* frequencies = inverse_frequencies_.const_data_ptr<float>();
  cosines_.resize(static_cast<size_t>(target * half_));
  sines_.resize(static_cast<size_t>(target * half_));
  for (int64_t position = known_; position < target; ++position) {
    for (int64_t i = 0; i < half_; ++i) {
      const double angle = static_cast<float>(position) * frequencies[i];  // the product is rounded to fp32
      cosines_[static_cast<size_t>(position * half_ + i)] = static_cast<float>(std::cos(angle));
      sines_[static_cast<size_t>(position * half_ + i)] = static_cast<float>(std::sin(angle));
    }
  }
  known_ = target;
}

RopeRows Rope::rows(const at::Tensor& positions) {
  const int64_t tokens = positions.size(1);
  const auto on_axis = positions.accessor<int64_t, 2>();
  int64_t highest = 0;
  for (int64_t axis = 0; axis < kAxes; ++axis) {
    for (int64_t t = 0; t < tokens; ++t) highest = std::max(highest, on_axis[axis][t]);
  }
  grow(highest + 1);
  RopeRows rows = {at::empty({tokens, half_}, at::kFloat), at::empty({tokens, half_}, at::kFloat)};
  float* cosines = rows.cosines.mutable_data_ptr<float>();
  float* sines = rows.sines.mutable_data_ptr<float>();
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = 0; i < half_; ++i) {
      const auto from = static_cast<size_t>(on_axis[axis_[static_cast<size_t>(i)]][t] * half_ + i);
      cosines[t * half_ + i] = cosines_[from];
      sines[t * half_ + i] = sines_[from];
    }
  }
  if (dtype_ != at::kFloat) {
    rows.cosines = rows.cosines.to(dtype_).to(at::kFloat);
    rows.sines = rows.sines.to(dtype_).to(at::kFloat);
  }
  return rows;
}

}  // namespace omni
