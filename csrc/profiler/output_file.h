// A file that appears under its name only when it is complete, compressed on the way if wanted.
//
// Compression is ISA-L's fastest deflate level into one gzip member: several members, which parallel compressors write,
// are rejected or cut off by Perfetto and chrome://tracing. ISA-L compresses trace text several times faster than zlib's
// level 1 at about the same size, and finishing a trace is little else than compressing it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace omni {

// Whether path + ".tmp" must not be there, or may be: empty, made by whoever chose the name, so that no other process
// takes it.
enum class Name : uint8_t { kNew, kReserved };

// Not thread-safe; may be handed from thread to thread.
class OutputFile {
 public:
  // Creates path + ".tmp". Throws ALREADY-THERE cases as FAILED_PRECONDITION and everything else that the system
  // refuses as INTERNAL or RESOURCE_EXHAUSTED, naming the file.
  OutputFile(std::string path, bool gzip, Name name = Name::kNew);
  // Removes the unfinished file unless commit() has returned, or writing has failed after keep_on_failure().
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::string_view bytes);

  // What was written so far can be read from the unfinished file from now on, also if this process is killed. Costs a few
  // bytes of compression.
  void flush();

  // From now on an unfinished file stays if writing it fails: half of it is worth something.
  void keep_on_failure() { keep_on_failure_ = true; }

  // Completes the file and gives it its name, which must not exist: earlier files are never replaced.
  void commit();

  const std::string& path() const { return path_; }
  int64_t bytes_in() const { return bytes_in_; }    // what write() was given
  int64_t bytes_out() const { return bytes_out_; }  // the size of the file so far
  // The size of the file if it were completed with so many bytes more: rather too large than too small.
  int64_t expected_bytes(int64_t more) const;

 private:
  struct Compressor;

  enum class Flush : uint8_t { kNo, kReadable, kLast };

  void compress(std::string_view bytes, Flush flush);
  void write_raw(const void* data, size_t size);
  [[noreturn]] void fail(const std::string& what, int error);

  std::string path_;
  std::string tmp_path_;
  int fd_ = -1;
  bool committed_ = false;
  bool failed_ = false;
  bool keep_on_failure_ = false;
  int64_t bytes_in_ = 0;
  int64_t bytes_out_ = 0;
  int64_t bytes_in_at_flush_ = 0;
  int64_t bytes_in_at_output_ = 0;  // bytes_in_ when bytes_out_ grew last: the compressor holds the rest
  std::unique_ptr<Compressor> compressor_;  // null: plain
};

}  // namespace omni
