// Rng against numbers that Python's torch drew (testdata/sampler_golden.py).
#include "runtime/rng.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "expect_error.h"

namespace omni {
namespace {

nlohmann::json golden() {
  return nlohmann::json::parse(std::ifstream(OMNI_SOURCE_DIR "/csrc/tests/testdata/rng_golden.json"));
}

std::vector<float> floats(const at::Tensor& tensor) {
  const at::Tensor dense = tensor.contiguous();
  return {dense.const_data_ptr<float>(), dense.const_data_ptr<float>() + dense.numel()};
}

at::Tensor decode_base64(const std::string& text) {
  static const std::string kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::vector<uint8_t> bytes;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    if (c == '=') break;
    bits = bits << 6 | static_cast<uint32_t>(kAlphabet.find(c));
    count += 6;
    if (count >= 8) bytes.push_back(static_cast<uint8_t>(bits >> (count -= 8)));
  }
  return at::tensor(at::ArrayRef<uint8_t>(bytes), at::kByte);
}

// One normal and two uniform numbers: where the generator stands.
std::vector<float> draws_after(Rng& rng) {
  std::vector<float> draws = floats(at::randn({1}, rng.generator()));
  for (const float value : floats(at::rand({2}, rng.generator()))) draws.push_back(value);
  return draws;
}

TEST(Rng, DrawsWhatPythonDraws) {
  for (const auto& test : golden().at("seeded")) {
    SCOPED_TRACE(test.at("seed").dump());
    Rng rng(test.at("seed").get<uint64_t>());
    EXPECT_EQ(floats(at::rand({5}, rng.generator())), test.at("rand").get<std::vector<float>>());
    EXPECT_EQ(floats(at::randn({5}, rng.generator())), test.at("randn").get<std::vector<float>>());
    const double sum = at::randn({1, 40, 80}, rng.generator()).to(at::kDouble).sum().item<double>();
    EXPECT_NEAR(sum, test.at("randn_long").get<double>(), 1e-9);
    const at::Tensor weights = at::arange(1.0, 101.0, at::kFloat).unsqueeze(0);
    for (const auto& expected : test.at("multinomial")) {
      EXPECT_EQ(at::multinomial(weights, 1, false, rng.generator()).item<int64_t>(), expected.get<int64_t>());
    }
    for (const auto& expected : test.at("randint")) {
      EXPECT_EQ(at::randint(int64_t{1} << 40, {1}, rng.generator(), at::kLong).item<int64_t>(),
                expected.get<int64_t>());
    }
    EXPECT_EQ(draws_after(rng), test.at("after").get<std::vector<float>>());
  }
}

TEST(Rng, GoesOnFromPythonsState) {
  const nlohmann::json resumed = golden().at("resumed");
  Rng rng(decode_base64(resumed.at("state_base64")));
  EXPECT_EQ(floats(at::randn({5}, rng.generator())), resumed.at("randn").get<std::vector<float>>());
  EXPECT_EQ(floats(at::rand({5}, rng.generator())), resumed.at("rand").get<std::vector<float>>());
}

TEST(Rng, StateHandsOverExactly) {
  Rng first(11);
  at::randn({7}, first.generator());
  const at::Tensor state = first.state();
  EXPECT_EQ(state.scalar_type(), at::kByte);
  Rng second(state);
  EXPECT_EQ(draws_after(first), draws_after(second));
  Rng third(state);
  EXPECT_NE(draws_after(first), draws_after(third)) << "the state is a copy: draws do not change it";
}

TEST(Rng, GeneratorsAreIndependent) {
  Rng alone(3);
  const std::vector<float> expected = floats(at::rand({4}, alone.generator()));
  Rng first(3);
  Rng second(4);
  std::vector<float> drawn;
  for (int i = 0; i < 4; ++i) {
    drawn.push_back(at::rand({1}, first.generator()).item<float>());
    at::randn({5}, second.generator());
    at::rand({5});
  }
  EXPECT_EQ(drawn, expected);
}

TEST(Rng, RefusesWhatIsNoState) {
  const at::Tensor state = Rng(1).state();
  const int64_t size = state.numel();
  expect_error([] { Rng(at::Tensor()); }, OMNI_INVALID_ARGUMENT, {"generator state", "found nothing"});
  expect_error([&] { Rng(state.to(at::kInt)); }, OMNI_INVALID_ARGUMENT, {"expected Byte", "found Int"});
  expect_error([&] { Rng(state.slice(0, 0, size - 1)); }, OMNI_INVALID_ARGUMENT, {std::to_string(size - 1)});
  expect_error([&] { Rng(state.unsqueeze(0)); }, OMNI_INVALID_ARGUMENT, {"one dimension"});
  expect_error([&] { Rng(at::full({size}, 255, at::kByte)); }, OMNI_INVALID_ARGUMENT, {"generator state"});
}

}  // namespace
}  // namespace omni
