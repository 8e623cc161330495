// Binding, checking and loading the tensors of one network.
#include "runtime/weights.h"

#include <ATen/ATen.h>

#include <cstring>
#include <unordered_set>
#include <utility>

#include "status.h"

namespace omni {
namespace {

constexpr int64_t kBytesPerPart = 64 << 20;
constexpr size_t kMaxFaultsListed = 20;

bool is_aligned(const TensorInfo& info) {
  return reinterpret_cast<uintptr_t>(info.data) % c10::elementSize(info.dtype) == 0;
}

// The mapped bytes as a tensor of the file's dtype: a view that keeps the checkpoint mapped, or a copy if the file
// placed the data where its element type must not be read.
at::Tensor host_tensor(const TensorInfo& info, std::shared_ptr<const Checkpoint> checkpoint) {
  const auto options = at::TensorOptions().dtype(info.dtype);
  if (info.bytes == 0) return at::empty(info.shape, options);
  if (is_aligned(info)) {
    return at::from_blob(
        const_cast<uint8_t*>(info.data), info.shape, [keep = std::move(checkpoint)](void*) {}, options);
  }
  at::Tensor copy = at::empty(info.shape, options);
  std::memcpy(copy.data_ptr(), info.data, static_cast<size_t>(info.bytes));
  return copy;
}

at::Tensor load_tensor(const TensorInfo& info, const std::shared_ptr<const Checkpoint>& checkpoint,
                       at::ScalarType dtype, at::Device device) {
  checkpoint->populate(info);
  const at::Tensor host = host_tensor(info, checkpoint);
  at::Tensor loaded = host.to(at::TensorOptions().dtype(dtype).device(device));
  const bool is_view = info.bytes > 0 && loaded.is_cpu() && loaded.const_data_ptr() == info.data;
  if (!is_view) checkpoint->discard(info);
  return loaded;
}

}  // namespace

Weights::Weights(std::shared_ptr<const Checkpoint> checkpoint, at::Device device)
    : checkpoint_(std::move(checkpoint)), device_(device) {}

void Weights::bind(at::Tensor* slot, std::string name, std::vector<int64_t> shape, at::ScalarType dtype,
                   bool optional) {
  slots_.push_back({slot, std::move(name), std::move(shape), dtype, optional});
}

void Weights::check() const {
  std::vector<std::string> faults;
  for (const Slot& slot : slots_) {
    const TensorInfo* info = checkpoint_->find(slot.name);
    const std::string expected = "expected " + shape_text(slot.shape);
    if (info == nullptr) {
      if (!slot.optional) faults.push_back("tensor \"" + slot.name + "\" is missing, " + expected);
      continue;
    }
    const std::string where = info->file + ": tensor \"" + slot.name + "\": ";
    if (info->shape != slot.shape) {
      faults.push_back(where + expected + ", found " + shape_text(info->shape));
    } else if (at::isFloatingType(slot.dtype) != at::isFloatingType(info->dtype)) {
      faults.push_back(where + "expected " + safetensors_dtype_name(slot.dtype) + " or a like type, found " +
                       safetensors_dtype_name(info->dtype));
    }
  }
  if (faults.empty()) return;
  std::string message = "checkpoint " + checkpoint_->folder() + ": ";
  for (size_t i = 0; i < std::min(faults.size(), kMaxFaultsListed); ++i)
    message += (i == 0 ? "" : "; ") + faults[i];
  if (faults.size() > kMaxFaultsListed) {
    message += "; and " + std::to_string(faults.size() - kMaxFaultsListed) + " more";
  }
  throw Error(OMNI_INVALID_ARGUMENT, message);
}

bool Weights::load_next() {
  if (next_ == slots_.size()) return false;
  int64_t part = 0;
  for (; next_ < slots_.size() && part < kBytesPerPart; ++next_) {
    const Slot& slot = slots_[next_];
    const TensorInfo* info = checkpoint_->find(slot.name);
    if (info == nullptr) continue;  // optional: check() has refused all others
    *slot.tensor = load_tensor(*info, checkpoint_, slot.dtype, device_);
    part += info->bytes;
    bytes_done_ += info->bytes;
  }
  return true;
}

int64_t Weights::bytes_done() const { return bytes_done_; }

int64_t Weights::bytes_total() const {
  int64_t bytes = 0;
  for (const Slot& slot : slots_) {
    const TensorInfo* info = checkpoint_->find(slot.name);
    if (info != nullptr) bytes += info->bytes;
  }
  return bytes;
}

int64_t Weights::parameters() const {
  int64_t elements = 0;
  for (const Slot& slot : slots_) {
    const TensorInfo* info = checkpoint_->find(slot.name);
    if (info != nullptr) elements += info->bytes / static_cast<int64_t>(c10::elementSize(info->dtype));
  }
  return elements;
}

int64_t Weights::unused_under(std::string_view prefix) const {
  std::unordered_set<std::string_view> bound;
  for (const Slot& slot : slots_) bound.insert(slot.name);
  int64_t unused = 0;
  for (const std::string& name : checkpoint_->names_under(prefix)) unused += bound.count(name) == 0 ? 1 : 0;
  return unused;
}

WeightPath::WeightPath(Weights* weights, std::string prefix, at::ScalarType dtype)
    : weights_(weights), prefix_(std::move(prefix)), dtype_(dtype) {}

WeightPath WeightPath::operator/(std::string_view part) const {
  return WeightPath(weights_, prefix_.empty() ? std::string(part) : prefix_ + "." + std::string(part),
                    dtype_);
}

WeightPath WeightPath::operator/(int64_t index) const { return *this / std::to_string(index); }

WeightPath WeightPath::with_dtype(at::ScalarType dtype) const { return WeightPath(weights_, prefix_, dtype); }

void WeightPath::bind(at::Tensor& slot, std::string_view name, std::vector<int64_t> shape) const {
  weights_->bind(&slot, (*this / name).prefix(), std::move(shape), dtype_, false);
}

void WeightPath::bind_optional(at::Tensor& slot, std::string_view name, std::vector<int64_t> shape) const {
  weights_->bind(&slot, (*this / name).prefix(), std::move(shape), dtype_, true);
}

}  // namespace omni
