// Weights: binding, the one report of all faults, views and conversions.
#include "runtime/weights.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "expect_error.h"
#include "temp_checkpoint.h"

namespace omni {
namespace {

std::shared_ptr<const Checkpoint> make_checkpoint(const TempFolder& folder,
                                                  const std::vector<FileTensor>& tensors,
                                                  size_t padding = 0) {
  folder.write("config.json", "{}");
  folder.write("model.safetensors", safetensors_file(tensors, padding));
  return Checkpoint::open(folder.path());
}

std::vector<FileTensor> two_layers() {
  return {
      {"m.layers.0.weight", "F32", {2, 2}, bytes_of<float>({1, 2, 3, 4})},
      {"m.layers.1.weight", "F32", {2, 2}, bytes_of<float>({5, 6, 7, 8})},
      {"m.norm", "BF16", {2}, bytes_of<at::BFloat16>({at::BFloat16(1.5f), at::BFloat16(-2.0f)})},
      {"m.ids", "I64", {2}, bytes_of<int64_t>({1, 2})},
      {"other.x", "F32", {1}, bytes_of<float>({0})},
  };
}

void load_all(Weights& weights) {
  weights.check();
  while (weights.load_next()) {
  }
}

TEST(Weights, BindsByPathAndCounts) {
  const TempFolder folder;
  Weights weights(make_checkpoint(folder, two_layers()), at::kCPU);
  const WeightPath path = WeightPath(&weights, "", at::kFloat) / "m";
  std::vector<at::Tensor> layers(2);
  at::Tensor norm;
  at::Tensor absent = at::ones(1);
  for (int64_t i = 0; i < 2; ++i)
    (path / "layers" / i).bind(layers[static_cast<size_t>(i)], "weight", {2, 2});
  path.with_dtype(at::kBFloat16).bind(norm, "norm", {2});
  at::Tensor bias;
  path.bind_optional(bias, "bias", {2});

  EXPECT_EQ((path / "layers" / 3).prefix(), "m.layers.3");
  EXPECT_EQ(path.dtype(), at::kFloat);
  EXPECT_EQ(path.device(), at::Device(at::kCPU));
  EXPECT_EQ(weights.parameters(), 10);
  EXPECT_EQ(weights.bytes_total(), 36);
  EXPECT_EQ(weights.bytes_done(), 0);
  EXPECT_EQ(weights.unused_under("m"), 1);
  EXPECT_EQ(weights.unused_under(""), 2);
  load_all(weights);
  EXPECT_EQ(weights.bytes_done(), 36);
  EXPECT_TRUE(layers[1].equal(at::tensor({5.f, 6.f, 7.f, 8.f}).view({2, 2})));
  EXPECT_EQ(norm.scalar_type(), at::kBFloat16);
  EXPECT_FALSE(bias.defined());
}

TEST(Weights, AViewKeepsTheFileAndAConversionCopies) {
  const TempFolder folder;
  auto checkpoint = make_checkpoint(folder, two_layers());
  const auto* mapped = checkpoint->find("m.layers.0.weight")->data;
  at::Tensor view;
  at::Tensor converted;
  at::Tensor widened;
  {
    Weights weights(checkpoint, at::kCPU);
    weights.bind(&view, "m.layers.0.weight", {2, 2}, at::kFloat, false);
    weights.bind(&converted, "m.layers.0.weight", {2, 2}, at::kHalf, false);
    weights.bind(&widened, "m.norm", {2}, at::kFloat, false);
    load_all(weights);
  }
  checkpoint.reset();  // the view holds the last reference
  EXPECT_EQ(view.const_data_ptr(), mapped);
  EXPECT_TRUE(view.equal(at::tensor({1.f, 2.f, 3.f, 4.f}).view({2, 2})));
  EXPECT_TRUE(converted.equal(view.to(at::kHalf)));
  EXPECT_TRUE(widened.equal(at::tensor({1.5f, -2.f})));
}

TEST(Weights, ReadsDataAtAnyOffset) {
  for (size_t padding = 0; padding < 8; ++padding) {
    const TempFolder folder;
    const auto checkpoint = make_checkpoint(folder, two_layers(), padding);
    at::Tensor weight;
    at::Tensor ids;
    Weights weights(checkpoint, at::kCPU);
    weights.bind(&weight, "m.layers.1.weight", {2, 2}, at::kFloat, false);
    weights.bind(&ids, "m.ids", {2}, at::kLong, false);
    load_all(weights);
    EXPECT_TRUE(weight.equal(at::tensor({5.f, 6.f, 7.f, 8.f}).view({2, 2}))) << "padding " << padding;
    EXPECT_TRUE(ids.equal(at::tensor({int64_t{1}, int64_t{2}}))) << "padding " << padding;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(weight.const_data_ptr()) % alignof(float), 0u);
  }
}

TEST(Weights, LoadsAnEmptyTensor) {
  const TempFolder folder;
  Weights weights(make_checkpoint(folder, {{"e", "F32", {0, 4}, ""}}), at::kCPU);
  at::Tensor empty;
  weights.bind(&empty, "e", {0, 4}, at::kFloat, false);
  load_all(weights);
  EXPECT_EQ(empty.sizes(), at::IntArrayRef({0, 4}));
}

TEST(Weights, ReportsEveryFaultAtOnce) {
  const TempFolder folder;
  Weights weights(make_checkpoint(folder, two_layers()), at::kCPU);
  at::Tensor slot;
  weights.bind(&slot, "m.layers.0.weight", {2, 3}, at::kFloat, false);
  weights.bind(&slot, "m.norm", {3}, at::kFloat, true);
  weights.bind(&slot, "m.gone", {4, 5}, at::kFloat, false);
  weights.bind(&slot, "m.gone_too", {4}, at::kFloat, true);
  weights.bind(&slot, "m.ids", {2}, at::kFloat, false);
  weights.bind(&slot, "m.layers.1.weight", {2, 2}, at::kFloat, false);
  expect_error([&] { weights.check(); }, OMNI_INVALID_ARGUMENT,
               {"checkpoint " + folder.path(),
                "model.safetensors: tensor \"m.layers.0.weight\": expected [2, 3], found [2, 2]",
                "model.safetensors: tensor \"m.norm\": expected [3], found [2]",
                "tensor \"m.gone\" is missing, expected [4, 5]",
                "model.safetensors: tensor \"m.ids\": expected F32 or a like type, found I64"});
  try {
    weights.check();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find("m.gone_too"), std::string::npos);
    EXPECT_EQ(std::string(error.what()).find("m.layers.1"), std::string::npos);
  }
}

TEST(Weights, CutsALongReport) {
  const TempFolder folder;
  Weights weights(make_checkpoint(folder, {}), at::kCPU);
  at::Tensor slot;
  for (int i = 0; i < 25; ++i) weights.bind(&slot, "w" + std::to_string(i), {1}, at::kFloat, false);
  expect_error([&] { weights.check(); }, OMNI_INVALID_ARGUMENT, {"\"w19\"", "and 5 more"});
}

TEST(Weights, LoadsLargeWeightsInParts) {
  const TempFolder folder;
  std::vector<FileTensor> tensors;
  for (int i = 0; i < 5; ++i)
    tensors.push_back({"w" + std::to_string(i), "U8", {24 << 20}, std::string(24 << 20, 'x')});
  Weights weights(make_checkpoint(folder, tensors), at::kCPU);
  std::vector<at::Tensor> slots(5);
  for (int i = 0; i < 5; ++i) {
    weights.bind(&slots[static_cast<size_t>(i)], "w" + std::to_string(i), {24 << 20}, at::kByte, false);
  }
  weights.check();
  std::vector<int64_t> done;
  while (weights.load_next()) done.push_back(weights.bytes_done());
  EXPECT_EQ(done, (std::vector<int64_t>{72 << 20, 120 << 20}));
}

}  // namespace
}  // namespace omni
