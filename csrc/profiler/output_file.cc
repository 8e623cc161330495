// Files that appear when they are complete.
#include "profiler/output_file.h"

#include <fcntl.h>
#include <isa-l/igzip_lib.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <vector>

#include "status.h"

namespace omni {

struct OutputFile::Compressor {
  isal_zstream stream{};
  std::vector<uint8_t> level_memory = std::vector<uint8_t>(ISAL_DEF_LVL1_DEFAULT);
  std::vector<uint8_t> out = std::vector<uint8_t>(256 * 1024);

  Compressor() {
    isal_deflate_init(&stream);
    stream.level = 1;
    stream.level_buf = level_memory.data();
    stream.level_buf_size = static_cast<uint32_t>(level_memory.size());
    stream.gzip_flag = IGZIP_GZIP;
  }
};

OutputFile::OutputFile(std::string path, bool gzip, Name name)
    : path_(std::move(path)), tmp_path_(path_ + ".tmp") {
  if (::access(path_.c_str(), F_OK) == 0) fail("create", EEXIST);
  const int mode = name == Name::kReserved ? O_TRUNC : O_EXCL;
  fd_ = ::open(tmp_path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | mode, 0644);
  if (fd_ < 0) fail("create", errno);
  if (gzip) compressor_ = std::make_unique<Compressor>();
}

OutputFile::~OutputFile() {
  if (fd_ >= 0) ::close(fd_);
  const bool created = fd_ != -1;
  const bool keep = failed_ && keep_on_failure_;
  if (created && !committed_ && !keep) ::unlink(tmp_path_.c_str());
}

void OutputFile::write(std::string_view bytes) {
  bytes_in_ += static_cast<int64_t>(bytes.size());
  if (compressor_) {
    compress(bytes, Flush::kNo);
  } else {
    write_raw(bytes.data(), bytes.size());
  }
}

void OutputFile::flush() {
  if (compressor_ && bytes_in_ > bytes_in_at_flush_) compress({}, Flush::kReadable);
  bytes_in_at_flush_ = bytes_in_;
}

void OutputFile::commit() {
  if (compressor_) compress({}, Flush::kLast);
  const int fd = fd_;
  fd_ = -2;  // closed, but the .tmp is there
  if (::close(fd) != 0) fail("close", errno);
  // link() instead of rename(): it never replaces a file. Where the file system has no links, rename after a look.
  if (::link(tmp_path_.c_str(), path_.c_str()) == 0) {
    ::unlink(tmp_path_.c_str());
  } else if (errno == EEXIST || ::access(path_.c_str(), F_OK) == 0) {
    fail("rename to its final name", EEXIST);
  } else if (::rename(tmp_path_.c_str(), path_.c_str()) != 0) {
    fail("rename to its final name", errno);
  }
  committed_ = true;
}

int64_t OutputFile::expected_bytes(int64_t more) const {
  if (!compressor_) return bytes_out_ + more;
  // Traces shrink to a tenth, seldom to more than a sixth. The compressor may hold its last output back.
  constexpr int64_t kLeastRatio = 5, kHeldBack = 64 << 10;
  return bytes_out_ + (bytes_in_ - bytes_in_at_output_ + more + kHeldBack) / kLeastRatio;
}

void OutputFile::compress(std::string_view bytes, Flush flush) {
  isal_zstream& stream = compressor_->stream;
  stream.flush = flush == Flush::kReadable ? SYNC_FLUSH : NO_FLUSH;
  // isal_deflate counts in 32 bits.
  constexpr size_t kPiece = size_t{1} << 30;
  do {
    const std::string_view piece = bytes.substr(0, kPiece);
    bytes.remove_prefix(piece.size());
    // The library reads only; its field is not const.
    stream.next_in = reinterpret_cast<uint8_t*>(const_cast<char*>(piece.data()));
    stream.avail_in = static_cast<uint32_t>(piece.size());
    stream.end_of_stream = flush == Flush::kLast && bytes.empty() ? 1 : 0;
    do {
      stream.next_out = compressor_->out.data();
      stream.avail_out = static_cast<uint32_t>(compressor_->out.size());
      const int result = isal_deflate(&stream);
      if (result != COMP_OK) {
        throw Error(OMNI_INTERNAL, tmp_path_ + ": isal_deflate failed with " + std::to_string(result));
      }
      write_raw(compressor_->out.data(), compressor_->out.size() - stream.avail_out);
    } while (stream.avail_out == 0);
  } while (!bytes.empty());
}

void OutputFile::write_raw(const void* data, size_t size) {
  const char* at = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = ::write(fd_, at, size);
    if (written < 0) {
      if (errno == EINTR) continue;
      fail("write", errno);
    }
    at += written;
    size -= static_cast<size_t>(written);
    bytes_out_ += written;
    bytes_in_at_output_ = bytes_in_;
  }
}

void OutputFile::fail(const std::string& what, int error) {
  failed_ = true;
  omni_code code = OMNI_INTERNAL;
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) code = OMNI_RESOURCE_EXHAUSTED;
  if (error == EEXIST) code = OMNI_FAILED_PRECONDITION;
  if (error == ENOENT || error == ENOTDIR) code = OMNI_NOT_FOUND;
  std::string text = "profile output " + path_ + ": " + what + ": " + std::strerror(error);
  if (keep_on_failure_)
    text += "; what had been written is in " + tmp_path_ + ", which omni-run profile repair reads";
  throw Error(code, text);
}

}  // namespace omni
