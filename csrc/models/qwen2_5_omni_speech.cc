#include "models/qwen2_5_omni_speech.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <string>

#include "status.h"

namespace omni::qwen2_5_omni {
namespace {

// Control goes back to the caller after about this many floating-point operations, some tenths of a second. A step of
// Runge and Kutta that takes more is spread over four calls, one per evaluation of the network...
constexpr double kWorkPerCall = 1e11;
// ...and the vocoder makes its samples in pieces, each from its frames and those around them. Pieces are not shorter
// than this, unless there is no more to be made, or the frames around them would cost more than those in them.
constexpr int64_t kLeastPiece = 256;
// Below this guidance the network is not run without its condition at all.
constexpr double kLeastGuidance = 1e-5;

}  // namespace

Speech::Speech(const Dit& dit, const BigVgan& bigvgan, const ChunkPlan& plan, at::Device device)
    : dit_(&dit), bigvgan_(&bigvgan), plan_(plan), device_(device) {}

void Speech::append(const std::vector<int64_t>& codes) {
  codes_.insert(codes_.end(), codes.begin(), codes.end());
}

bool Speech::done() const { return complete_ ? voiced_ == made_ : ended_ && codes_total() == 0; }

bool Speech::ready() const {
  if (done()) return false;
  return solver_ != nullptr || voiceable() > voiced_ || (has_rng() && next_chunk());
}

std::optional<Chunk> Speech::next_chunk() const {
  if (complete_) return std::nullopt;
  return plan_.next(made_, codes_total(), ended_);
}

int64_t Speech::codes_wanted() const {
  const int64_t needed = plan_.codes_for(made_);
  return needed == ChunkPlan::kNeverEnough ? needed : std::max<int64_t>(needed - codes_total(), 1);
}

at::Tensor Speech::advance() {
  if (!solver_ && voiceable() > voiced_) return vocode();
  if (!solver_) start(next_chunk().value());
  denoise();
  return {};
}

// The frames that can become sound: those whose surroundings are there.
int64_t Speech::voiceable() const {
  return complete_ ? made_ : std::max(made_ - bigvgan_->context_frames(), voiced_);
}

at::Tensor Speech::codes_of(const Chunk& chunk) const {
  const DitConfig& config = dit_->config();
  const int64_t first = chunk.begin / config.repeats;
  const int64_t last = (chunk.seen + config.repeats - 1) / config.repeats;
  if (chunk.seen > config.max_frames) {
    throw Error(OMNI_INVALID_ARGUMENT, std::to_string(last) + " codes make " + std::to_string(chunk.seen) +
                                           " mel frames, the model takes at most " +
                                           std::to_string(config.max_frames));
  }
  const std::vector<int64_t> codes(codes_.begin() + (first - first_code_),
                                   codes_.begin() + (last - first_code_));
  for (size_t i = 0; i < codes.size(); ++i) {
    if (codes[i] < 0 || codes[i] > config.num_embeds) {
      throw Error(OMNI_INVALID_ARGUMENT, "code " + std::to_string(codes[i]) + " at position " +
                                             std::to_string(first + static_cast<int64_t>(i)) +
                                             " is not in the vocoder's range, 0 to " +
                                             std::to_string(config.num_embeds));
    }
  }
  return at::tensor(codes, at::kLong).to(device_);
}

// Drawn on the CPU, in the order in which the reference draws it for the whole at once.
at::Tensor Speech::noise_of(const Chunk& chunk) {
  const int64_t width = dit_->config().ecapa.mel_dim;
  const int64_t rows = chunk.seen - chunk.begin;
  const int64_t have = noise_.defined() ? noise_.size(0) : 0;
  if (rows > have) {
    const at::Tensor more = noise_source_->next((rows - have) * width).view({-1, width});
    noise_ = have > 0 ? at::cat({noise_, more}) : more;
  }
  if (chunk.last) {
    const at::Tensor ending = noise_source_->ending();
    const int64_t count = std::min(ending.numel(), noise_.numel());
    noise_.view({-1})
        .narrow(0, noise_.numel() - count, count)
        .copy_(ending.narrow(0, ending.numel() - count, count));
  }
  return noise_.narrow(0, 0, rows).to(device_);
}

void Speech::start(const Chunk& chunk) {
  const DitConfig& config = dit_->config();
  const SpeechStyle& style = style_.value();
  DitSpan span;
  span.first = chunk.begin;
  span.rows = chunk.seen - chunk.begin;
  span.before = std::min(chunk.begin, config.reach_back() * config.block());  // no layer looks back farther
  DitCondition condition = dit_->condition(codes_of(chunk), style.voice, style.speaker,
                                           style.guidance_scale >= kLeastGuidance, span);
  const bool alone = chunk.begin == 0 && chunk.last;  // there is nothing to remember
  solver_ = std::make_unique<DitSolver>(*dit_, style.schedule, std::move(condition), style.guidance_scale,
                                        noise_of(chunk), alone ? nullptr : &memories_,
                                        chunk.last ? 0 : chunk.end - chunk.begin);
  chunk_ = chunk;
}

void Speech::denoise() {
  if (!solver_->done()) {
    const bool whole_step = 4 * dit_->config().work(solver_->state().size(0)) <= kWorkPerCall;
    do {
      solver_->advance();
    } while (whole_step && !solver_->at_step());
  }
  if (solver_->done()) commit();
}

// Takes over what the solver has made and drops what nothing needs any more.
void Speech::commit() {
  const int64_t rows = chunk_->end - chunk_->begin;
  const at::Tensor mel = solver_->state().narrow(0, 0, rows).t().contiguous();
  const at::Tensor spectrum = BigVgan::spectrum(mel);
  spectrum_ = spectrum_.defined() ? at::cat({spectrum_, spectrum}, 1) : spectrum;
  solver_.reset();
  made_ = chunk_->end;
  complete_ = chunk_->last;
  noise_ = noise_.narrow(0, rows, noise_.size(0) - rows).clone();
  const int64_t first = made_ / dit_->config().repeats;
  codes_.erase(codes_.begin(), codes_.begin() + (first - first_code_));
  first_code_ = first;
  if (complete_) memories_.clear();
}

at::Tensor Speech::vocode() {
  const int64_t begin = voiced_ - spectrum_begin_;
  int64_t end = voiceable() - spectrum_begin_;
  at::Tensor audio;
  if (bigvgan_->divisible()) {
    const auto affordable = static_cast<int64_t>(kWorkPerCall / bigvgan_->work(1));
    end = std::min(begin + std::max(affordable, kLeastPiece), end);
    audio = bigvgan_->synthesize_piece(spectrum_, begin, end);
  } else {
    audio = bigvgan_->synthesize(spectrum_);
  }
  voiced_ = spectrum_begin_ + end;
  const int64_t unneeded = std::max<int64_t>(end - bigvgan_->context_frames(), 0);
  spectrum_ = spectrum_.narrow(1, unneeded, spectrum_.size(1) - unneeded).contiguous();
  spectrum_begin_ += unneeded;
  return audio;
}

}  // namespace omni::qwen2_5_omni
