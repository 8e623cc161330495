#include "runtime/normal_stream.h"

#include <ATen/ATen.h>

#include <utility>

namespace omni {
namespace {

constexpr int64_t kGroup = 16;

at::Tensor draw(Rng& rng, int64_t count) {
  return at::randn({count}, rng.generator(), at::TensorOptions().dtype(at::kFloat));
}

}  // namespace

NormalStream::NormalStream(Rng rng)
    : rng_(std::move(rng)), spare_(at::empty({0}, at::TensorOptions().dtype(at::kFloat))) {}

at::Tensor NormalStream::next(int64_t count) {
  at::Tensor values = spare_;
  const int64_t missing = count - spare_.numel();
  if (missing > 0) {
    const int64_t groups = (missing + kGroup - 1) / kGroup;
    if (groups > 1) values = at::cat({values, draw(rng_, (groups - 1) * kGroup)});
    last_group_ = rng_.state();
    values = at::cat({values, draw(rng_, kGroup)});
  }
  spare_ = values.narrow(0, count, values.numel() - count).clone();
  total_ += count;
  return values.narrow(0, 0, count);
}

at::Tensor NormalStream::ending() {
  const int64_t rest = total_ % kGroup;
  if (rest == 0) return at::empty({0}, spare_.options());
  Rng rng(last_group_);
  if (total_ < kGroup) return draw(rng, total_);
  // The draws of the last group's beginning have been made already when torch makes those for the end.
  at::rand({rest}, rng.generator(), spare_.options());
  return draw(rng, kGroup);
}

}  // namespace omni
