// Finding, mapping and indexing the files of a checkpoint folder.
#include "runtime/checkpoint.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <utility>

#include "status.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22  // Linux 5.14; older C library headers lack the name
#endif

namespace omni {
namespace {

using nlohmann::json;

// The file names that transformers and diffusers write, in the order in which they look for them.
constexpr const char* kStems[] = {"model", "diffusion_pytorch_model"};

[[noreturn]] void fail(omni_code code, const std::string& message) { throw Error(code, message); }

std::string errno_text(int number) { return std::strerror(number); }

// A file that is mapped for reading as long as the object lives.
class MappedFile {
 public:
  MappedFile(const std::string& path, std::string name) : name_(std::move(name)) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0)
      fail(errno == ENOENT ? OMNI_NOT_FOUND : OMNI_INVALID_ARGUMENT, name_ + ": " + errno_text(errno));
    struct stat info{};
    if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
      ::close(fd);
      fail(OMNI_INVALID_ARGUMENT, name_ + ": not a regular file");
    }
    size_ = static_cast<size_t>(info.st_size);
    if (size_ > 0) {
      void* mapping = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd, 0);
      const int error = errno;
      ::close(fd);
      if (mapping == MAP_FAILED) {
        fail(OMNI_RESOURCE_EXHAUSTED,
             name_ + ": mapping " + std::to_string(size_) + " bytes: " + errno_text(error));
      }
      data_ = static_cast<const uint8_t*>(mapping);
    } else {
      ::close(fd);
    }
  }
  MappedFile(MappedFile&& other) noexcept
      : name_(std::move(other.name_)),
        data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)) {}
  MappedFile& operator=(MappedFile&&) = delete;
  ~MappedFile() {
    if (data_ != nullptr) ::munmap(const_cast<uint8_t*>(data_), size_);
  }

  const std::string& name() const { return name_; }
  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  std::string name_;
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

json read_json(const std::string& folder, const std::string& name) {
  std::ifstream stream(folder + "/" + name, std::ios::binary);
  if (!stream) fail(OMNI_NOT_FOUND, name + ": " + errno_text(errno));
  const std::string text{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  if (stream.bad()) fail(OMNI_INVALID_ARGUMENT, name + ": " + errno_text(errno));
  return parse_json(text, name);
}

bool exists(const std::string& folder, const std::string& name) {
  std::error_code ignored;  // what cannot be looked at is reported by the one who opens it
  return std::filesystem::exists(folder + "/" + name, ignored);
}

// tensor name -> shard file, from an index. Shards lie in the folder itself: a path in the index could point anywhere.
std::map<std::string, std::string> read_index(const std::string& folder, const std::string& name) {
  const json document = read_json(folder, name);
  const Config index(&document, name);
  const Config weight_map = index.object("weight_map");
  std::map<std::string, std::string> shard_of;
  for (const auto& [tensor, shard] : weight_map.json().items()) {
    if (!shard.is_string()) weight_map.fail("tensor \"" + tensor + "\": expected the name of a file");
    const auto& file = shard.get_ref<const std::string&>();
    if (file.empty() || file.find('/') != std::string::npos || file.find('\0') != std::string::npos) {
      weight_map.fail("tensor \"" + tensor + "\": expected the name of a file in this folder, found \"" +
                      file + "\"");
    }
    shard_of.emplace(tensor, file);
  }
  if (shard_of.empty()) weight_map.fail("names no tensor");
  return shard_of;
}

int page_advice(const uint8_t* data, int64_t bytes, int advice, bool whole_pages_only) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  auto begin = reinterpret_cast<uintptr_t>(data);
  uintptr_t end = begin + static_cast<uintptr_t>(bytes);
  begin = whole_pages_only ? (begin + page - 1) / page * page : begin / page * page;
  end = whole_pages_only ? end / page * page : (end + page - 1) / page * page;
  if (begin >= end) return 0;
  return ::madvise(reinterpret_cast<void*>(begin), end - begin, advice) == 0 ? 0 : errno;
}

}  // namespace

struct Checkpoint::Impl {
  std::string folder;
  json config;
  std::vector<MappedFile> files;
  std::map<std::string, TensorInfo, std::less<>> tensors;

  void add_file(const std::string& name, const std::map<std::string, std::string>& shard_of) {
    files.emplace_back(folder + "/" + name, name);
    const MappedFile& file = files.back();
    for (TensorInfo& info : read_safetensors_header(file.data(), file.size(), name)) {
      const auto listed = shard_of.find(info.name);
      if (listed != shard_of.end() && listed->second != name)
        continue;  // the index takes it from another shard
      const auto [it, added] = tensors.emplace(info.name, info);
      if (!added) {
        fail(OMNI_INVALID_ARGUMENT, name + ": tensor \"" + info.name + "\" is also in " + it->second.file);
      }
    }
  }

  void add_shards(const std::string& index_name) {
    const std::map<std::string, std::string> shard_of = read_index(folder, index_name);
    std::set<std::string> shards;
    for (const auto& [tensor, shard] : shard_of) shards.insert(shard);
    for (const std::string& shard : shards) {
      if (!exists(folder, shard)) fail(OMNI_NOT_FOUND, shard + ": missing, but " + index_name + " names it");
      add_file(shard, shard_of);
    }
    for (const auto& [tensor, shard] : shard_of) {
      if (tensors.find(tensor) == tensors.end()) {
        fail(OMNI_INVALID_ARGUMENT,
             shard + ": tensor \"" + tensor + "\" is missing, but " + index_name + " says it is there");
      }
    }
  }

  void add_tensors() {
    for (const std::string stem : kStems) {
      const std::string single = stem + ".safetensors";
      const std::string index = single + ".index.json";
      if (exists(folder, single)) return add_file(single, {});
      if (exists(folder, index)) return add_shards(index);
    }
    fail(OMNI_NOT_FOUND, "neither model.safetensors nor model.safetensors.index.json is there");
  }
};

std::shared_ptr<const Checkpoint> Checkpoint::open(const std::string& folder) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(folder, ignored)) {
    fail(OMNI_NOT_FOUND, "checkpoint " + folder + ": no such folder");
  }
  auto impl = std::make_unique<Impl>();
  impl->folder = folder;
  try {
    impl->config = read_json(folder, "config.json");
    [[maybe_unused]] const Config root(&impl->config, "config.json");  // throws unless it is an object
    impl->add_tensors();
  } catch (const Error& error) {
    fail(error.code(), "checkpoint " + folder + ": " + error.what());
  }
  return std::make_shared<const Checkpoint>(std::move(impl));
}

Checkpoint::Checkpoint(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Checkpoint::~Checkpoint() = default;

const std::string& Checkpoint::folder() const { return impl_->folder; }

Config Checkpoint::config() const { return Config(&impl_->config, "config.json"); }

std::string Checkpoint::path(std::string_view file) const { return impl_->folder + "/" + std::string(file); }

const TensorInfo* Checkpoint::find(std::string_view name) const {
  const auto it = impl_->tensors.find(name);
  return it == impl_->tensors.end() ? nullptr : &it->second;
}

std::vector<std::string> Checkpoint::names_under(std::string_view prefix) const {
  std::vector<std::string> names;
  for (auto it = impl_->tensors.lower_bound(prefix); it != impl_->tensors.end(); ++it) {
    if (it->first.compare(0, prefix.size(), prefix) != 0) break;
    const bool at_border = prefix.empty() || prefix.back() == '.' || it->first.size() == prefix.size() ||
                           it->first[prefix.size()] == '.';
    if (at_border) names.push_back(it->first);
  }
  return names;
}

void Checkpoint::populate(const TensorInfo& info) const {
  const int error = page_advice(info.data, info.bytes, MADV_POPULATE_READ, false);
  if (error == 0 || error == EINVAL)
    return;  // EINVAL: a kernel without it; the first use brings the pages in
  fail(OMNI_INVALID_ARGUMENT, "checkpoint " + impl_->folder + ": " + info.file + ": tensor \"" + info.name +
                                  "\": reading " + std::to_string(info.bytes) + " bytes: " +
                                  errno_text(error) + " (was the file cut while it was in use?)");
}

void Checkpoint::discard(const TensorInfo& info) const {
  // Advice only: a failure costs memory, not correctness.
  page_advice(info.data, info.bytes, MADV_DONTNEED, true);
}

}  // namespace omni
