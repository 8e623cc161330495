// Spans that grow.
#include "cuda/annotation_spans.h"

#include <algorithm>

namespace omni::cuda {

void StreamSpans::add(const StreamSpan& span) {
  const auto found = std::find_if(list_.begin(), list_.end(), [&](const StreamSpan& known) {
    return known.device == span.device && known.stream == span.stream;
  });
  if (found == list_.end()) {
    list_.push_back(span);
    return;
  }
  if (span.start_ns < found->start_ns) {
    found->start_ns = span.start_ns;
    found->first_on_track = span.first_on_track;
  }
  if (span.end_ns > found->end_ns) {
    found->end_ns = span.end_ns;
    found->last_on_track = span.last_on_track;
  }
}

uint64_t AnnotationSpans::begin(std::string_view name, uint64_t external_id, uint64_t outer) {
  const uint64_t number = ++last_;
  const size_t at = number % kMost;
  if (at >= kept_.size()) kept_.resize(std::min(kMost, std::max<size_t>(64, 2 * at)));
  Annotation& place = kept_[at];
  write(place);
  place.number = number;
  place.outer = outer;
  place.external_id = external_id;
  place.name = name;
  return number;
}

void AnnotationSpans::work(uint64_t annotation, const StreamSpan& span) {
  while (annotation != kNone && annotation % kMost < kept_.size()) {
    Annotation& found = kept_[annotation % kMost];
    if (found.number != annotation) return;  // written, as are those around it
    found.spans.add(span);
    annotation = found.outer;
  }
}

void AnnotationSpans::finish() {
  const uint64_t first = last_ < kMost ? 1 : last_ - kMost + 1;
  for (uint64_t number = first; number <= last_; ++number) write(kept_[number % kMost]);
}

void AnnotationSpans::write(Annotation& annotation) {
  for (const StreamSpan& span : annotation.spans.list())
    write_(annotation.name, annotation.external_id, span);
  annotation.spans.clear();
}

}  // namespace omni::cuda
