// runtime/pickle and runtime/speakers: genuine files of torch.save, hand-made pickles, and every way to be wrong.
//
// testdata/*.pt were written by Python's torch.save (2.15): speakers "Ethan" (cond 0..3, ref_mel k/8 [1,3,2], bos 7)
// and "Chelsie" (cond 0..-3, a transposed bfloat16 ref_mel [1,4,2], bos a 0-d tensor 9).
#include "runtime/pickle.h"

#include <ATen/ATen.h>
#include <caffe2/serialize/inline_container.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "runtime/speakers.h"
#include "status.h"
#include "temp_checkpoint.h"

namespace omni {
namespace {

std::string testdata(const std::string& name) {
  return std::string(OMNI_SOURCE_DIR "/csrc/tests/testdata/") + name;
}

std::string in(const TempFolder& folder, const std::string& name) { return folder.path() + "/" + name; }

std::string line(const std::string& module, const std::string& name) {
  return "c" + module + "\n" + name + "\n";
}
std::string text(const std::string& value) {
  const auto size = static_cast<uint32_t>(value.size());
  return "X" + std::string(reinterpret_cast<const char*>(&size), 4) + value;
}
std::string small(int value) { return std::string("K") + static_cast<char>(value); }

const std::string kFloat = line("torch", "FloatStorage");
const std::string kRebuild = line("torch._utils", "_rebuild_tensor_v2");
const std::string kHooks = line("collections", "OrderedDict") + ")R";

std::string storage(const std::string& storage_class, int elements) {
  return "((" + text("storage") + storage_class + text("0") + text("cpu") + small(elements) + "tQ";
}
// A float32 tensor [rows, 2] of strides [stride, 1] at offset, over a storage of elements numbers.
std::string tensor(int elements, int offset, int rows, int stride) {
  return kRebuild + storage(kFloat, elements) + small(offset) + small(rows) + small(2) + "\x86" +
         small(stride) + small(1) + "\x86" + "\x89" + kHooks + "tR";
}

struct Records {
  std::string pickle;
  size_t data_bytes = 16;  // of record data/0, floats 0 1 2 3
  std::string byteorder = "little";
};

void write_file(const std::string& path, const Records& records) {
  caffe2::serialize::PyTorchStreamWriter writer(path);
  const std::string code = "\x80\x02" + records.pickle + ".";
  writer.writeRecord("data.pkl", code.data(), code.size());
  writer.writeRecord("byteorder", records.byteorder.data(), records.byteorder.size());
  const std::vector<float> data{0, 1, 2, 3};
  writer.writeRecord("data/0", data.data(), records.data_bytes);
  writer.writeEndOfFile();
}

std::string error_of(const std::string& path, omni_code expected_code = OMNI_INVALID_ARGUMENT) {
  try {
    PickleFile file(path);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), expected_code) << error.what();
    return error.what();
  }
  return "no error";
}

TEST(Pickle, PlainValues) {
  TempFolder folder;
  const std::string pi("G\x40\x09\x21\xfb\x54\x44\x2d\x18", 9);
  const std::string pickle =
      "}(" + text("none") + "N" + text("yes") + "\x88" + text("no") + "\x89" + text("byte") + small(200) +
      text("short") + std::string("M\x01\x02", 3) + text("minus") + std::string("J\xff\xff\xff\xff", 5) +
      text("long") + std::string("\x8a\x05\x00\x00\x00\x00\x01", 7) + text("minus long") +
      std::string("\x8a\x01\x80", 3) + text("pi") + pi + text("list") + "](" + small(1) + "e" + small(2) +
      "a" + text("pair") + small(3) + "q\x01" + "h\x01" + "\x86" + "u";
  write_file(in(folder, "a.pt"), {pickle});
  const PickleFile file(in(folder, "a.pt"));
  const PickleValue& root = file.root();
  EXPECT_EQ(root.describe(), "a dict of 11");
  EXPECT_EQ(root.find("none")->describe(), "None");
  EXPECT_TRUE(*root.find("yes")->boolean());
  EXPECT_FALSE(*root.find("no")->boolean());
  EXPECT_EQ(*root.find("byte")->integer(), 200);
  EXPECT_EQ(*root.find("short")->integer(), 0x201);
  EXPECT_EQ(*root.find("minus")->integer(), -1);
  EXPECT_EQ(*root.find("long")->integer(), int64_t{1} << 32);
  EXPECT_EQ(*root.find("minus long")->integer(), -128);
  EXPECT_DOUBLE_EQ(*root.find("pi")->number(), 3.141592653589793);
  ASSERT_EQ(root.find("list")->items()->size(), 2U);
  EXPECT_EQ(*(*root.find("list")->items())[1].integer(), 2);
  ASSERT_EQ(root.find("pair")->items()->size(), 2U);
  EXPECT_EQ(*(*root.find("pair")->items())[1].integer(), 3);
  EXPECT_EQ(root.find("other"), nullptr);
}

TEST(Pickle, TensorsAreViewsOfTheirStorageMadeContiguous) {
  TempFolder folder;
  write_file(in(folder, "a.pt"), {tensor(4, 0, 2, 2)});
  EXPECT_TRUE(at::equal(*PickleFile(in(folder, "a.pt")).root().tensor(), at::arange(4.0F).view({2, 2})));
  write_file(in(folder, "b.pt"), {tensor(4, 1, 2, 1)});
  EXPECT_TRUE(at::equal(*PickleFile(in(folder, "b.pt")).root().tensor(),
                        at::tensor({1.F, 2.F, 2.F, 3.F}).view({2, 2})));
  write_file(in(folder, "c.pt"), {tensor(4, 4, 0, 2)});
  EXPECT_EQ(PickleFile(in(folder, "c.pt")).root().tensor()->numel(), 0);
}

TEST(Pickle, FaultsAreNamed) {
  struct Case {
    const char* name;
    Records records;
    const char* message;
  };
  const std::vector<Case> cases{
      {"function", {line("os", "system") + text("true") + "\x85R"}, "the function os.system is not allowed"},
      {"function as value", {line("os", "system")}, "expected a value, found the name os.system"},
      {"opcode", {"b"}, "instruction 0x62 is not allowed"},
      {"protocol", {"\x80\x01N"}, "pickle protocol 1, expected 2 to 5"},
      {"end inside a string", {text("abc").substr(0, 6)}, "the pickle ends inside an instruction"},
      {"a string longer than everything", {std::string("X\xff\xff\xff\x7f", 5)}, "is longer than the pickle"},
      {"end inside a name", {"cos"}, "the pickle ends inside a name"},
      {"empty stack", {""}, "the stack is empty"},
      {"two results", {"NN"}, "1 values left on the stack"},
      {"no mark", {"t"}, "no mark on the stack"},
      {"mark as value", {"("}, "expected a value, found a mark"},
      {"items for no dict", {"N(" + small(1) + small(2) + "u"}, "expected a dict on the stack"},
      {"items for a list", {"](" + small(1) + small(2) + "u"}, "expected a dict on the stack"},
      {"append to a tuple", {")" + small(1) + "a"}, "expected a list on the stack"},
      {"key without value", {"}(" + small(1) + "u"}, "a key without a value"},
      {"memo", {"h\x05"}, "nothing was remembered under 5"},
      {"memo of nothing", {"q\x05"}, "nothing on the stack to remember"},
      {"wide integer", {std::string("\x8a\x09", 2)}, "an integer of 9 bytes"},
      {"storage class", {storage(line("torch", "QInt8Storage"), 4)}, "found torch.QInt8Storage"},
      {"storage size", {storage(kFloat, 200)}, "record data/0 has 16 bytes, expected 200 x 4"},
      {"storage record cut", {storage(kFloat, 4), 14}, "record data/0 has 14 bytes, expected 4 x 4"},
      {"offset", {tensor(4, 3, 1, 2)}, "a tensor reaches beyond its storage of 4 elements"},
      {"rows", {tensor(4, 0, 3, 2)}, "a tensor reaches beyond its storage of 4 elements"},
      {"overlap", {tensor(4, 0, 200, 0)}, "a tensor reaches beyond its storage of 4 elements"},
      {"empty beyond the end", {tensor(4, 5, 0, 2)}, "a tensor reaches beyond its storage of 4 elements"},
      {"byte order", {"N", 16, "big"}, "expected little-endian data, found byteorder \"big\""},
  };
  TempFolder folder;
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    write_file(in(folder, "a.pt"), c.records);
    const std::string message = error_of(in(folder, "a.pt"));
    EXPECT_NE(message.find(c.message), std::string::npos) << message;
    EXPECT_EQ(message.rfind(in(folder, "a.pt"), 0), 0U) << message;
  }
}

TEST(Pickle, FaultsOfTheContainer) {
  TempFolder folder;
  EXPECT_NE(error_of(in(folder, "none.pt"), OMNI_NOT_FOUND).find("No such file"), std::string::npos);
  EXPECT_NE(error_of(testdata("")).find("not a regular file"), std::string::npos);
  std::ofstream(in(folder, "text.pt"))
      << "hello, I am no zip file, and I am long enough to be looked at twice";
  EXPECT_NE(error_of(in(folder, "text.pt")).find("not a zip file of torch.save"), std::string::npos);
  std::ofstream(in(folder, "empty.pt")).close();
  EXPECT_NE(error_of(in(folder, "empty.pt")).find("not a zip file of torch.save"), std::string::npos);
}

// No byte of the pickle, whatever it is changed to, may do more than raise an error.
TEST(Pickle, DamagedPicklesNeverCrash) {
  TempFolder folder;
  const std::string pickle = "}(" + text("a") + tensor(4, 0, 2, 2) + text("b") + "](" + small(1) + "Ne" + "u";
  int errors = 0;
  for (size_t at = 0; at < pickle.size(); ++at) {
    for (const char change : {'\0', 't', 'h', '\xff'}) {
      std::string damaged = pickle;
      damaged[at] = change;
      write_file(in(folder, "a.pt"), {damaged});
      try {
        PickleFile file(in(folder, "a.pt"));
      } catch (const Error&) {
        ++errors;
      }
    }
  }
  EXPECT_GT(errors, 300);
}

std::vector<Speaker> speakers_of(const TempFolder& folder, const std::string& file) {
  std::filesystem::copy_file(file, in(folder, "spk_dict.pt"),
                             std::filesystem::copy_options::overwrite_existing);
  return read_speakers(in(folder, "spk_dict.pt"));
}

TEST(Speakers, GenuineFiles) {
  TempFolder folder;
  for (const char* name : {"one_speaker.pt", "two_speakers.pt", "two_speakers_protocol_4.pt"}) {
    SCOPED_TRACE(name);
    const std::vector<Speaker> speakers = speakers_of(folder, testdata(name));
    ASSERT_EQ(speakers.size(), std::string(name) == "one_speaker.pt" ? 1U : 2U);
    EXPECT_EQ(speakers[0].name, "Ethan");
    EXPECT_EQ(speakers[0].bos_token, 7);
    EXPECT_TRUE(at::equal(speakers[0].cond, at::arange(4.0F).view({1, 4})));
    EXPECT_TRUE(at::equal(speakers[0].ref_mel, (at::arange(6.0F) / 8).view({1, 3, 2})));
    if (speakers.size() == 1) {
      EXPECT_EQ(default_speaker(speakers).name, "Ethan");
      continue;
    }
    EXPECT_EQ(speakers[1].name, "Chelsie");
    EXPECT_EQ(speakers[1].bos_token, 9);
    EXPECT_TRUE(at::equal(speakers[1].ref_mel, at::arange(8.0F).view({1, 2, 4}).transpose(1, 2)));
    EXPECT_EQ(default_speaker(speakers).name, "Chelsie");
    EXPECT_EQ(find_speaker(speakers, "").name, "Chelsie");
    EXPECT_EQ(find_speaker(speakers, "Ethan").name, "Ethan");
    try {
      find_speaker(speakers, "Nobody");
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_STREQ(error.what(), "speaker \"Nobody\" is not in the checkpoint, which has: Ethan, Chelsie");
    }
  }
}

TEST(Speakers, FaultsAreNamed) {
  struct Case {
    std::string pickle;
    const char* message;
  };
  const std::string cond = text("cond") + kRebuild + storage(kFloat, 4) + small(0) + small(1) + small(4) +
                           "\x86" + small(4) + small(1) + "\x86" + "\x89" + kHooks + "tR";
  const std::string mel = text("ref_mel") + kRebuild + storage(kFloat, 4) + small(0) + small(1) + small(2) +
                          small(2) + "\x87" + small(4) + small(2) + small(1) + "\x87" + "\x89" + kHooks +
                          "tR";
  const std::string bos = text("bos_token") + small(3);
  const auto speaker = [](const std::string& fields) { return "}" + text("A") + "}(" + fields + "us"; };
  const std::vector<Case> cases{
      {"]", "expected a dict of speakers, found a list or tuple of 0"},
      {"}", "expected a dict of speakers, found a dict of 0"},
      {"}" + small(1) + "}s", "expected names of speakers as keys, found 1"},
      {"}" + text("A") + "Ns", ": A: expected a dict with the key \"cond\", found None"},
      {speaker(mel + bos), ": A: expected a dict with the key \"cond\""},
      {speaker(text("cond") + small(1) + mel + bos),
       ": A.cond: expected a floating-point tensor [1, embedding], found 1"},
      {speaker(cond + text("ref_mel") + tensor(4, 0, 2, 2) + bos),
       ": A.ref_mel: expected a floating-point tensor [1, frames, mels], found a Float tensor [2, 2]"},
      {speaker(cond + mel), ": A: expected a dict with the key \"bos_token\""},
      {speaker(cond + mel + text("bos_token") + text("x")),
       ": A.bos_token: expected an integer, found \"x\""},
  };
  TempFolder folder;
  for (const Case& c : cases) {
    SCOPED_TRACE(c.message);
    write_file(in(folder, "spk_dict.pt"), {c.pickle});
    try {
      read_speakers(in(folder, "spk_dict.pt"));
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(c.message), std::string::npos) << error.what();
    }
  }
  write_file(in(folder, "spk_dict.pt"), {speaker(cond + mel + bos)});
  EXPECT_EQ(read_speakers(in(folder, "spk_dict.pt")).size(), 1U);
}

}  // namespace
}  // namespace omni
