// When GPUs worked for the annotations of the host: from the first to the last piece of work that was launched inside one,
// also inside those within it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace omni::cuda {

// From when to when a stream worked for something.
struct StreamSpan {
  uint32_t device = 0;
  uint32_t stream = 0;
  int64_t start_ns = 0;
  int64_t end_ns = 0;
  // Whether the first and the last piece of work are on the stream's own track: then nothing else on it crosses the span's
  // ends.
  bool first_on_track = true;
  bool last_on_track = true;
};

// One span per stream.
class StreamSpans {
 public:
  // Extends the span of that stream.
  void add(const StreamSpan& span);
  const std::vector<StreamSpan>& list() const { return list_; }
  void clear() { list_.clear(); }

 private:
  std::vector<StreamSpan> list_;
};

// Work is reported long after the annotation has ended, so the last kMost annotations are kept, and written when another
// needs the place. They are written in the order in which they began, outer ones before inner ones.
//
// Not thread-safe.
class AnnotationSpans {
 public:
  static constexpr uint64_t kNone = 0;
  static constexpr size_t kMost = size_t{1} << 16;

  // external_id: of the annotation itself.
  using Write = std::function<void(std::string_view name, uint64_t external_id, const StreamSpan& span)>;
  explicit AnnotationSpans(Write write) : write_(std::move(write)) {}

  // Begins an annotation inside outer; returns its number.
  uint64_t begin(std::string_view name, uint64_t external_id, uint64_t outer);
  // Work that was launched inside an annotation, innermost: it extends that and all around it.
  void work(uint64_t annotation, const StreamSpan& span);
  // Writes all that is kept.
  void finish();

 private:
  struct Annotation {
    uint64_t number = kNone;
    uint64_t outer = kNone;
    uint64_t external_id = 0;
    std::string name;
    StreamSpans spans;
  };
  void write(Annotation& annotation);

  Write write_;
  std::vector<Annotation> kept_;  // number n at n % kMost; grows up to that
  uint64_t last_ = 0;
};

}  // namespace omni::cuda
