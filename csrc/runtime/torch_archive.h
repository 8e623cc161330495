// The zip files that torch.save writes, as named records. What is in the records is runtime/pickle's matter.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

namespace caffe2::serialize {
class PyTorchStreamReader;
}

namespace omni {

// Every fault is a NOT_FOUND or INVALID_ARGUMENT that names the file and the record.
class TorchArchive {
 public:
  explicit TorchArchive(const std::string& path);
  ~TorchArchive();
  TorchArchive(const TorchArchive&) = delete;
  TorchArchive& operator=(const TorchArchive&) = delete;

  const std::string& path() const { return path_; }
  // The bytes of a record.
  size_t size(const std::string& record);
  // Fills destination, which has the record's size.
  void read(const std::string& record, void* destination, size_t bytes);
  // A record of at most limit bytes.
  std::string text(const std::string& record, size_t limit);

 private:
  std::string path_;
  std::unique_ptr<caffe2::serialize::PyTorchStreamReader> reader_;
};

}  // namespace omni
