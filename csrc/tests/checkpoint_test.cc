// Checkpoint folders: single files, shards, and everything that can be wrong with them.
#include "runtime/checkpoint.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "expect_error.h"
#include "temp_checkpoint.h"

namespace omni {
namespace {

FileTensor bytes_tensor(const std::string& name, const std::string& data) {
  return {name, "U8", {static_cast<int64_t>(data.size())}, data};
}

std::string index_of(const std::vector<std::pair<std::string, std::string>>& weight_map) {
  nlohmann::json map = nlohmann::json::object();
  for (const auto& [name, file] : weight_map) map[name] = file;
  return nlohmann::json{{"metadata", {{"total_size", 0}}}, {"weight_map", map}}.dump();
}

std::string data_of(const Checkpoint& checkpoint, const std::string& name) {
  const TensorInfo* info = checkpoint.find(name);
  if (info == nullptr) return "(missing)";
  checkpoint.populate(*info);
  return std::string(reinterpret_cast<const char*>(info->data), static_cast<size_t>(info->bytes));
}

TEST(Checkpoint, OpensASingleFile) {
  const TempFolder folder;
  folder.write("config.json", R"({"hidden_size": 8})");
  folder.write("model.safetensors", safetensors_file({bytes_tensor("a.b", "one"), bytes_tensor("c", "two")}));
  const auto checkpoint = Checkpoint::open(folder.path());
  EXPECT_EQ(checkpoint->folder(), folder.path());
  EXPECT_EQ(checkpoint->config().integer("hidden_size"), 8);
  EXPECT_EQ(checkpoint->path("spk_dict.pt"), folder.path() + "/spk_dict.pt");
  EXPECT_EQ(data_of(*checkpoint, "a.b"), "one");
  EXPECT_EQ(data_of(*checkpoint, "c"), "two");
  EXPECT_EQ(checkpoint->find("a"), nullptr);
  EXPECT_EQ(checkpoint->find("c")->file, "model.safetensors");
}

TEST(Checkpoint, OpensShards) {
  const TempFolder folder;
  folder.write("config.json", "{}");
  folder.write("s1.safetensors", safetensors_file({bytes_tensor("a", "1"), bytes_tensor("both", "old")}));
  folder.write("s2.safetensors", safetensors_file({bytes_tensor("b", "2"), bytes_tensor("both", "new"),
                                                   bytes_tensor("unlisted", "3")}));
  folder.write("model.safetensors.index.json",
               index_of({{"a", "s1.safetensors"}, {"b", "s2.safetensors"}, {"both", "s2.safetensors"}}));
  const auto checkpoint = Checkpoint::open(folder.path());
  EXPECT_EQ(data_of(*checkpoint, "a"), "1");
  EXPECT_EQ(data_of(*checkpoint, "b"), "2");
  EXPECT_EQ(data_of(*checkpoint, "both"), "new") << "the index decides between shards";
  EXPECT_EQ(data_of(*checkpoint, "unlisted"), "3");
  EXPECT_EQ(checkpoint->find("b")->file, "s2.safetensors");
}

TEST(Checkpoint, OpensAComponentOfDiffusers) {
  const TempFolder folder;
  folder.write("config.json", "{}");
  folder.write("diffusion_pytorch_model.safetensors", safetensors_file({bytes_tensor("a", "1")}));
  EXPECT_EQ(data_of(*Checkpoint::open(folder.path()), "a"), "1");
}

TEST(Checkpoint, NamesUnderAPrefixEndAtADot) {
  const TempFolder folder;
  folder.write("config.json", "{}");
  std::vector<FileTensor> tensors;
  for (const char* name : {"talker", "talker.a", "talker.b.c", "talker2.a", "thinker.a"}) {
    tensors.push_back(bytes_tensor(name, "x"));
  }
  folder.write("model.safetensors", safetensors_file(tensors));
  const auto checkpoint = Checkpoint::open(folder.path());
  using Names = std::vector<std::string>;
  EXPECT_EQ(checkpoint->names_under("talker"), (Names{"talker", "talker.a", "talker.b.c"}));
  EXPECT_EQ(checkpoint->names_under("talker."), (Names{"talker.a", "talker.b.c"}));
  EXPECT_EQ(checkpoint->names_under("").size(), 5u);
  EXPECT_EQ(checkpoint->names_under("token2wav"), Names{});
}

TEST(Checkpoint, RefusesBrokenFolders) {
  using Files = std::vector<std::pair<std::string, std::string>>;
  const std::string shard = safetensors_file({bytes_tensor("a", "1")});
  const struct {
    const char* name;
    Files files;
    omni_code code;
    std::vector<std::string> parts;
  } cases[] = {
      {"no config", {{"model.safetensors", shard}}, OMNI_NOT_FOUND, {"config.json: No such file"}},
      {"config is not JSON", {{"config.json", "{"}}, OMNI_INVALID_ARGUMENT, {"config.json: not JSON"}},
      {"config is a list",
       {{"config.json", "[]"}},
       OMNI_INVALID_ARGUMENT,
       {"config.json: expected a JSON object"}},
      {"no weights", {{"config.json", "{}"}}, OMNI_NOT_FOUND, {"neither model.safetensors"}},
      {"empty weights",
       {{"config.json", "{}"}, {"model.safetensors", ""}},
       OMNI_INVALID_ARGUMENT,
       {"model.safetensors: truncated: 0 bytes"}},
      {"cut weights",
       {{"config.json", "{}"}, {"model.safetensors", shard.substr(0, shard.size() - 1)}},
       OMNI_INVALID_ARGUMENT,
       {"model.safetensors: tensor \"a\": truncated"}},
      {"index without a map",
       {{"config.json", "{}"}, {"model.safetensors.index.json", "{}"}},
       OMNI_INVALID_ARGUMENT,
       {"model.safetensors.index.json: \"weight_map\" is missing"}},
      {"index of nothing",
       {{"config.json", "{}"}, {"model.safetensors.index.json", index_of({})}},
       OMNI_INVALID_ARGUMENT,
       {"weight_map: names no tensor"}},
      {"index with numbers",
       {{"config.json", "{}"}, {"model.safetensors.index.json", R"({"weight_map":{"a":1}})"}},
       OMNI_INVALID_ARGUMENT,
       {"weight_map: tensor \"a\": expected the name of a file"}},
      {"index that leaves the folder",
       {{"config.json", "{}"}, {"model.safetensors.index.json", index_of({{"a", "../x.safetensors"}})}},
       OMNI_INVALID_ARGUMENT,
       {"tensor \"a\"", "in this folder, found \"../x.safetensors\""}},
      {"missing shard",
       {{"config.json", "{}"},
        {"s1.safetensors", shard},
        {"model.safetensors.index.json", index_of({{"a", "s1.safetensors"}, {"b", "s2.safetensors"}})}},
       OMNI_NOT_FOUND,
       {"s2.safetensors: missing, but model.safetensors.index.json names it"}},
      {"shard without its tensor",
       {{"config.json", "{}"},
        {"s1.safetensors", shard},
        {"model.safetensors.index.json", index_of({{"a", "s1.safetensors"}, {"b", "s1.safetensors"}})}},
       OMNI_INVALID_ARGUMENT,
       {"s1.safetensors: tensor \"b\" is missing"}},
      {"unlisted tensor in two shards",
       {{"config.json", "{}"},
        {"s1.safetensors", safetensors_file({bytes_tensor("a", "1"), bytes_tensor("x", "1")})},
        {"s2.safetensors", safetensors_file({bytes_tensor("b", "1"), bytes_tensor("x", "1")})},
        {"model.safetensors.index.json", index_of({{"a", "s1.safetensors"}, {"b", "s2.safetensors"}})}},
       OMNI_INVALID_ARGUMENT,
       {"s2.safetensors: tensor \"x\" is also in s1.safetensors"}},
  };
  for (const auto& test : cases) {
    SCOPED_TRACE(test.name);
    const TempFolder folder;
    for (const auto& [name, bytes] : test.files) folder.write(name, bytes);
    std::vector<std::string> parts = test.parts;
    parts.push_back("checkpoint " + folder.path() + ": ");
    expect_error([&] { Checkpoint::open(folder.path()); }, test.code, parts);
  }
  expect_error([] { Checkpoint::open("/no/such/folder"); }, OMNI_NOT_FOUND,
               {"/no/such/folder: no such folder"});
}

TEST(Checkpoint, RefusesAFolderInPlaceOfAFile) {
  const TempFolder folder;
  folder.write("config.json", "{}");
  std::filesystem::create_directory(folder.path() + "/model.safetensors");
  expect_error([&] { Checkpoint::open(folder.path()); }, OMNI_INVALID_ARGUMENT,
               {"model.safetensors: not a regular file"});
}

TEST(Checkpoint, ReportsAFileThatWasCutAfterItHadBeenOpened) {
  const TempFolder folder;
  folder.write("config.json", "{}");
  folder.write("model.safetensors", safetensors_file({bytes_tensor("a", std::string(1 << 20, 'x'))}));
  const auto checkpoint = Checkpoint::open(folder.path());
  ASSERT_EQ(truncate((folder.path() + "/model.safetensors").c_str(), 4096), 0);
  expect_error([&] { checkpoint->populate(*checkpoint->find("a")); }, OMNI_INVALID_ARGUMENT,
               {"model.safetensors: tensor \"a\": reading 1048576 bytes"});
}

TEST(Checkpoint, DiscardedPagesComeBack) {
  const TempFolder folder;
  folder.write("config.json", "{}");
  const std::string data(1 << 20, 'x');
  folder.write("model.safetensors", safetensors_file({bytes_tensor("a", data)}));
  const auto checkpoint = Checkpoint::open(folder.path());
  EXPECT_EQ(data_of(*checkpoint, "a"), data);
  checkpoint->discard(*checkpoint->find("a"));
  EXPECT_EQ(data_of(*checkpoint, "a"), data);
}

}  // namespace
}  // namespace omni
