// The header reader: the accepted format, every refusal, and random damage.
#include "runtime/safetensors.h"

#include <gtest/gtest.h>

#include <random>

#include "expect_error.h"
#include "temp_checkpoint.h"

namespace omni {
namespace {

// The bytes are copied to a heap block of exactly their size, so that sanitizers see a read beyond the end.
std::vector<TensorInfo> read(const std::string& file) {
  const std::vector<uint8_t> bytes(file.begin(), file.end());
  std::vector<TensorInfo> tensors = read_safetensors_header(bytes.data(), bytes.size(), "model.safetensors");
  for (const TensorInfo& info : tensors) {
    EXPECT_GE(info.data, bytes.data());
    EXPECT_LE(info.data + info.bytes, bytes.data() + bytes.size());
  }
  return tensors;
}

std::string one_tensor(const std::string& fields, size_t data_size) {
  return safetensors_file("{\"w\":{" + fields + "}}", std::string(data_size, 'd'));
}

TEST(Safetensors, ReadsAllDTypesAndShapes) {
  const std::vector<TensorInfo> tensors = read(safetensors_file({
      {"a", "F64", {1}, std::string(8, 0)},
      {"b", "F32", {2, 3}, std::string(24, 0)},
      {"c", "F16", {}, std::string(2, 0)},
      {"d", "BF16", {4}, std::string(8, 0)},
      {"e", "I64", {1}, std::string(8, 0)},
      {"f", "I32", {1}, std::string(4, 0)},
      {"g", "I16", {1}, std::string(2, 0)},
      {"h", "I8", {1}, std::string(1, 0)},
      {"i", "U8", {3}, std::string(3, 0)},
      {"j", "BOOL", {1}, std::string(1, 0)},
      {"k", "F8_E4M3", {1}, std::string(1, 0)},
      {"l", "F8_E5M2", {1}, std::string(1, 0)},
      {"m", "F32", {0, 5}, ""},
  }));
  ASSERT_EQ(tensors.size(), 13u);
  EXPECT_EQ(tensors[1].name, "b");
  EXPECT_EQ(tensors[1].dtype, at::kFloat);
  EXPECT_EQ(tensors[1].shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(tensors[1].bytes, 24);
  EXPECT_EQ(tensors[1].file, "model.safetensors");
  EXPECT_EQ(tensors[2].shape, std::vector<int64_t>{});
  EXPECT_EQ(tensors[12].bytes, 0);
}

TEST(Safetensors, ReadsAFileWithoutTensors) {
  EXPECT_TRUE(read(safetensors_file("{}", "")).empty());
  EXPECT_TRUE(read(safetensors_file("{\"__metadata__\":{\"format\":\"pt\"}}", "")).empty());
}

TEST(Safetensors, RefusesWhatIsWrongAndSaysWhere) {
  const std::string length_beyond_file = std::string("\x09\0\0\0\0\0\0\0", 8) + "{}      ";
  const std::string length_huge = std::string(8, '\xff') + "{}";
  const std::string ok = "\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]";
  const struct {
    const char* name;
    std::string file;
    std::vector<std::string> parts;
  } cases[] = {
      {"empty", "", {"truncated: 0 bytes"}},
      {"shorter than the length", "\1\0\0", {"truncated"}},
      {"length beyond the file", length_beyond_file, {"truncated: the header has 9 bytes, 8 are there"}},
      {"length near 2^64", length_huge, {"not a safetensors file", "18446744073709551615"}},
      {"not JSON", safetensors_file("{\"w\":", ""), {"the header is not JSON"}},
      {"not an object", safetensors_file("[]", ""), {"not a JSON object"}},
      {"deep", safetensors_file(std::string(200000, '['), ""), {"nested too deeply"}},
      {"same name twice",
       safetensors_file("{\"w\":{" + ok + "},\"w\":{" + ok + "}}", std::string(8, 0)),
       {"tensor \"w\": appears twice"}},
      {"entry is no object",
       safetensors_file("{\"w\":3}", ""),
       {"tensor \"w\": expected an object, found 3"}},
      {"no dtype", one_tensor("\"shape\":[2],\"data_offsets\":[0,8]", 8), {"\"dtype\" is missing"}},
      {"unknown dtype",
       one_tensor("\"dtype\":\"F4\",\"shape\":[2],\"data_offsets\":[0,8]", 8),
       {"tensor \"w\": unknown dtype \"F4\"", "BF16"}},
      {"no shape", one_tensor("\"dtype\":\"F32\",\"data_offsets\":[0,8]", 8), {"\"shape\" is missing"}},
      {"negative dimension",
       one_tensor("\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]", 8),
       {"\"shape\": expected integers >= 0", "found -2"}},
      {"fractional dimension",
       one_tensor("\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]", 8),
       {"found 2.0"}},
      {"dimension of 64 bits",
       one_tensor("\"dtype\":\"F32\",\"shape\":[18446744073709551615],\"data_offsets\":[0,8]", 8),
       {"found 18446744073709551615"}},
      {"shape overflows",
       one_tensor("\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,8]", 8),
       {"shape [4611686018427387904, 4] overflows"}},
      {"shape overflows to zero",
       one_tensor("\"dtype\":\"U8\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]", 0),
       {"overflows"}},
      {"no offsets", one_tensor("\"dtype\":\"F32\",\"shape\":[2]", 8), {"\"data_offsets\" is missing"}},
      {"three offsets",
       one_tensor("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4,8]", 8),
       {"[begin, end]"}},
      {"offsets backwards",
       one_tensor("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]", 8),
       {"[begin, end]"}},
      {"data truncated", one_tensor(ok, 7), {"tensor \"w\": truncated: its data ends at 8, the file's at 7"}},
      {"offsets disagree with the shape",
       one_tensor("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]", 4),
       {"F32 [2] takes 8 bytes", "hold 4"}},
      {"data behind the last tensor", one_tensor(ok, 10), {"2 bytes after the last tensor"}},
      {"hole",
       safetensors_file("{\"w\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}", "123"),
       {"tensor \"w\": its data begins at 1"}},
      {"overlap",
       safetensors_file("{\"v\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},"
                        "\"w\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[2,4]}}",
                        "1234"),
       {"tensor \"w\"", "overlaps that of \"v\""}},
  };
  for (const auto& test : cases) {
    SCOPED_TRACE(test.name);
    std::vector<std::string> parts = test.parts;
    parts.push_back("model.safetensors");
    expect_error([&] { read(test.file); }, OMNI_INVALID_ARGUMENT, parts);
  }
}

// Whatever the bytes are, the reader returns tensors that lie inside the file, or throws omni::Error.
TEST(Safetensors, SurvivesRandomDamage) {
  const std::string seeds[] = {
      safetensors_file({{"layers.0.weight", "BF16", {2, 3}, std::string(12, 1)},
                        {"bias", "F32", {3}, std::string(12, 2)}}),
      safetensors_file({{"empty", "U8", {0}, ""}, {"scalar", "I64", {}, std::string(8, 3)}}, 5),
      safetensors_file("{}", ""),
  };
  const std::string alphabet = "{}[]\",:0123456789-eE.nulltruefalse\\ \t";
  std::mt19937 random(20240607);
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  int refused = 0;
  constexpr int kRounds = 20000;
  for (int round = 0; round < kRounds; ++round) {
    std::string file = seeds[below(std::size(seeds))];
    const size_t edits = 1 + below(4);
    for (size_t i = 0; i < edits && !file.empty(); ++i) {
      const size_t at = below(file.size());
      switch (below(5)) {
        case 0:
          file[at] = static_cast<char>(random());
          break;
        case 1:
          file[at] = alphabet[below(alphabet.size())];
          break;
        case 2:
          file.insert(at, 1, alphabet[below(alphabet.size())]);
          break;
        case 3:
          file.erase(at, 1 + below(9));
          break;
        default:
          file += file.substr(at);
      }
    }
    try {
      read(file);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), OMNI_INVALID_ARGUMENT);
      ++refused;
    }
  }
  EXPECT_GT(refused, kRounds / 2);
  EXPECT_LT(refused, kRounds);
}

}  // namespace
}  // namespace omni
