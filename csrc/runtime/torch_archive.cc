// Records by torch's own reader, with its faults as errors of this library.
#include "runtime/torch_archive.h"

#include <c10/util/Exception.h>
#include <caffe2/serialize/inline_container.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <new>

#include "status.h"

namespace omni {
namespace {

// Runs body; what it throws becomes "<path>: <what> (<reason>)".
template <typename Body>
void guarded(const std::string& path, const std::string& what, Body&& body) {
  try {
    body();
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    const auto* torch_error = dynamic_cast<const c10::Error*>(&error);
    const std::string reason = torch_error != nullptr ? torch_error->what_without_backtrace() : error.what();
    // The first sentence says it; what follows is advice on training jobs.
    throw Error(OMNI_INVALID_ARGUMENT, path + ": " + what + " (" + reason.substr(0, reason.find(". ")) + ")");
  }
}

}  // namespace

TorchArchive::TorchArchive(const std::string& path) : path_(path) {
  struct stat info{};
  if (::stat(path.c_str(), &info) != 0) throw Error(OMNI_NOT_FOUND, path + ": " + std::strerror(errno));
  if (!S_ISREG(info.st_mode)) throw Error(OMNI_INVALID_ARGUMENT, path + ": not a regular file");
  guarded(path_, "not a zip file of torch.save",
          [&] { reader_ = std::make_unique<caffe2::serialize::PyTorchStreamReader>(path); });
  if (!reader_->hasRecord("byteorder")) return;
  if (const std::string order = text("byteorder", 16); order != "little") {
    throw Error(OMNI_INVALID_ARGUMENT,
                path + ": expected little-endian data, found byteorder \"" + order + "\"");
  }
}

TorchArchive::~TorchArchive() = default;

size_t TorchArchive::size(const std::string& record) {
  size_t bytes = 0;
  guarded(path_, "no record \"" + record + "\"", [&] { bytes = reader_->getRecordSize(record); });
  return bytes;
}

void TorchArchive::read(const std::string& record, void* destination, size_t bytes) {
  guarded(path_, "record \"" + record + "\" is damaged",
          [&] { reader_->getRecord(record, destination, bytes); });
}

std::string TorchArchive::text(const std::string& record, size_t limit) {
  const size_t length = size(record);
  if (length > limit) {
    throw Error(OMNI_INVALID_ARGUMENT, path_ + ": record \"" + record + "\" has " + std::to_string(length) +
                                           " bytes, expected at most " + std::to_string(limit));
  }
  std::string bytes(length, '\0');
  read(record, bytes.data(), length);
  return bytes;
}

}  // namespace omni
