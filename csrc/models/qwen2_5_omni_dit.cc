#include "models/qwen2_5_omni_dit.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "nn/ada_norm.h"
#include "nn/dense.h"
#include "profiler/scope.h"

namespace omni::qwen2_5_omni {
namespace {

constexpr double kNormEps = 1e-6;
constexpr int64_t kTimeFrequencies = 256;  // sines and cosines of the time
constexpr double kTimeScale = 1000;

// The rope's base, in the spelling of transformers 5 or 4; other kinds than the plain one are not for this model.
double rope_theta_of(const Config& config) {
  const std::optional<Config> parameters = config.maybe_object("rope_parameters");
  const Config& source = parameters ? *parameters : config;
  if (parameters) {
    const std::string type = parameters->string("rope_type", "default");
    if (type != "default") parameters->fail("rope_type: expected \"default\", found \"" + type + "\"");
  }
  const double theta = source.number("rope_theta", 10000.0);
  if (!(theta > 0)) source.fail("rope_theta: expected a number > 0");
  return theta;
}

int64_t positive_or(const Config& config, const char* key, int64_t fallback) {
  return config.has(key) ? config.positive(key) : fallback;
}

bool contains(const std::vector<int64_t>& list, int64_t value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

// Queries, keys and values [batch, rows, 3, ...] after remembered keys and values [batch, before, 2, ...], which have
// no queries.
at::Tensor after_remembered(const at::Tensor& remembered, const at::Tensor& qkv) {
  const int64_t before = remembered.size(1);
  at::Tensor all = at::empty({qkv.size(0), before + qkv.size(1), 3, qkv.size(3), qkv.size(4)}, qkv.options());
  all.narrow(1, 0, before).select(2, 0).zero_();
  all.narrow(1, 0, before).narrow(2, 1, 2).copy_(remembered);
  all.narrow(1, before, qkv.size(1)).copy_(qkv);
  return all;
}

}  // namespace

DitConfig DitConfig::parse(const Config& config) {
  DitConfig c;
  c.ecapa = EcapaConfig::parse(config);
  c.hidden_size = positive_or(config, "hidden_size", 1024);
  c.layers = positive_or(config, "num_hidden_layers", 22);
  c.heads = positive_or(config, "num_attention_heads", 16);
  c.head_dim = positive_or(config, "head_dim", 64);
  if (c.head_dim % 2 != 0)
    config.fail("head_dim: expected an even number, found " + std::to_string(c.head_dim));
  c.ff_size = c.hidden_size * positive_or(config, "ff_mult", 2);
  c.code_dim = positive_or(config, "emb_dim", 512);
  c.speaker_dim = positive_or(config, "enc_emb_dim", 192);
  c.num_embeds = positive_or(config, "num_embeds", 8193);
  c.repeats = positive_or(config, "repeats", 2);
  c.max_frames = positive_or(config, "max_position_embeddings", 32768);
  c.rope_theta = rope_theta_of(config);
  const int64_t block = positive_or(config, "block_size", 24);
  const std::vector<int64_t> ahead = config.integers("look_ahead_layers", {10});
  const std::vector<int64_t> back = config.integers("look_backward_layers", {0, 20});
  for (int64_t i = 0; i < c.layers; ++i) c.windows.push_back({block, contains(back, i), contains(ahead, i)});
  return c;
}

double DitConfig::work(int64_t frames) const {
  const int64_t inner = heads * head_dim;
  const auto weights = static_cast<double>(layers * hidden_size * (4 * inner + 2 * ff_size));
  return 2 * 2 * static_cast<double>(frames) * weights;  // a multiplication and an addition, for both halves
}

int64_t DitConfig::reach_back() const {
  int64_t blocks = 0;
  for (const BlockWindow& window : windows) blocks += window.back;
  return blocks;
}

int64_t DitConfig::reach_ahead() const {
  int64_t blocks = 0;
  for (const BlockWindow& window : windows) blocks += window.ahead;
  return blocks;
}

Dit::Dit(const DitConfig& config, const WeightPath& path)
    : config_(config), name_("token2wav.dit"), ecapa_(config.ecapa, path / "input_embed" / "spk_encoder") {
  const int64_t hidden = config.hidden_size;
  const int64_t inner = config.heads * config.head_dim;
  time_in_.bind(path / "time_embed" / "time_mlp" / 0, kTimeFrequencies, hidden);
  time_out_.bind(path / "time_embed" / "time_mlp" / 2, hidden, hidden);
  (path / "text_embed" / "codec_embed").bind(codes_, "weight", {config.num_embeds + 1, config.code_dim});
  input_.bind(path / "input_embed" / "proj",
              config.ecapa.mel_dim + config.ecapa.enc_dim + config.code_dim + config.speaker_dim, hidden);

  layers_.resize(config.layers);
  for (int64_t i = 0; i < config.layers; ++i) {
    Layer& layer = layers_[i];
    const WeightPath here = path / "transformer_blocks" / i;
    layer.name = name_ + ".block." + std::to_string(i);
    layer.window = config.windows[i];
    layer.modulation.bind(here / "attn_norm" / "linear", hidden, 6 * hidden);
    layer.q.bind(here / "attn" / "to_q", hidden, inner);
    layer.k.bind(here / "attn" / "to_k", hidden, inner);
    layer.v.bind(here / "attn" / "to_v", hidden, inner);
    layer.out.bind(here / "attn" / "to_out" / 0, inner, hidden);
    layer.ff_in.bind(here / "ff" / "ff" / 0, hidden, config.ff_size);
    layer.ff_out.bind(here / "ff" / "ff" / 3, config.ff_size, hidden);
  }
  last_modulation_.bind(path / "norm_out" / "linear", hidden, 2 * hidden);
  output_.bind(path / "proj_out", hidden, config.ecapa.mel_dim);
}

void Dit::prepare() {
  const std::vector<at::Tensor> columns = at::split_with_sizes(
      input_.weight, {config_.ecapa.mel_dim, config_.ecapa.enc_dim, config_.code_dim, config_.speaker_dim},
      1);
  input_mel_ = columns[0].contiguous();
  input_voice_ = columns[1].contiguous();
  input_code_ = columns[2].contiguous();
  input_speaker_ = columns[3].contiguous();
  input_.weight.reset();
  for (Layer& layer : layers_) {
    layer.qkv.weight = at::cat({layer.q.weight, layer.k.weight, layer.v.weight});
    layer.qkv.bias = at::cat({layer.q.bias, layer.k.bias, layer.v.bias});
    layer.q = layer.k = layer.v = DenseLayer();
  }
}

std::pair<at::Tensor, at::Tensor> Dit::encode_voice(const at::Tensor& ref_mel) const {
  return {ecapa_.forward(ref_mel), ecapa_.forward(at::zeros_like(ref_mel))};
}

DitCondition Dit::condition(const at::Tensor& codes, const std::pair<at::Tensor, at::Tensor>& voice,
                            const at::Tensor& speaker, bool guided, const DitSpan& span) const {
  const Scope scope(name_ + ".condition");
  // The input projection is linear, so its columns for all but the mel are applied here, once.
  const auto project_code = [this](const at::Tensor& ids) {
    return at::linear(at::embedding(codes_, ids), input_code_);
  };
  const at::Tensor own =
      at::addmm(at::linear(speaker, input_speaker_, input_.bias), voice.first, input_voice_.t());
  at::Tensor rows = at::repeat_interleave(project_code(codes) + own, config_.repeats, 0);
  if (span.rows >= 0) rows = rows.narrow(0, span.first % config_.repeats, span.rows);
  rows = rows.unsqueeze(0);
  if (guided) {
    const at::Tensor none =
        project_code(at::zeros({1}, codes.options())) + at::linear(voice.second, input_voice_, input_.bias);
    rows = at::cat({rows, none.expand_as(rows[0]).unsqueeze(0)});
  }
  const auto options = rows.options();
  const at::Tensor exponents = at::arange(0, config_.head_dim, 2, options) / config_.head_dim;
  const at::Tensor frequencies = at::pow(config_.rope_theta, exponents).reciprocal();
  const at::Tensor positions = at::arange(span.first - span.before, span.first + rows.size(1), options);
  const at::Tensor angles = at::outer(positions, frequencies);
  return {rows, angles.cos(), angles.sin(), span.before};
}

std::vector<DitModulation> Dit::modulations(const at::Tensor& points) const {
  const Scope scope(name_ + ".modulation");
  const at::Tensor times = points.to(codes_.device());
  const int64_t half = kTimeFrequencies / 2;
  const double decay = std::log(10000.0) / static_cast<double>(half - 1);
  const at::Tensor frequencies = at::exp(at::arange(half, times.options()) * -decay);
  const at::Tensor angles = kTimeScale * times.unsqueeze(1) * frequencies.unsqueeze(0);
  const at::Tensor waves = at::cat({angles.sin(), angles.cos()}, 1);
  const at::Tensor embedding = at::silu(time_out_.forward(at::silu(time_in_.forward(waves))));

  std::vector<DitModulation> result(times.size(0));
  for (const Layer& layer : layers_) {
    const at::Tensor parts = layer.modulation.forward(embedding).unflatten(1, {6, -1});
    parts.select(1, 1).add_(1);
    parts.select(1, 4).add_(1);
    for (size_t t = 0; t < result.size(); ++t) {
      const std::vector<at::Tensor> p = parts[static_cast<int64_t>(t)].unbind();
      result[t].layers.push_back({p[0], p[1], p[2], p[3], p[4], p[5]});
    }
  }
  const at::Tensor last = last_modulation_.forward(embedding).unflatten(1, {2, -1});
  last.select(1, 0).add_(1);
  for (size_t t = 0; t < result.size(); ++t) {
    // Here the scale comes first.
    result[t].last_scale = last[static_cast<int64_t>(t)][0];
    result[t].last_shift = last[static_cast<int64_t>(t)][1];
  }
  return result;
}

at::Tensor Dit::attention(size_t index, const at::Tensor& x, const DitCondition& condition,
                          DitMemory* memory) const {
  const Layer& layer = layers_[index];
  at::Tensor qkv =
      layer.qkv.forward(x).view({condition.rows.size(0), -1, 3, config_.heads, config_.head_dim});
  const int64_t rows = qkv.size(1);
  int64_t before = 0;
  if (memory != nullptr && layer.window.back > 0) {
    at::Tensor& remembered = memory->layers[index];
    if (remembered.defined()) {
      before = remembered.size(1);
      qkv = after_remembered(remembered, qkv);
    }
    const int64_t end = before + memory->keep;
    const int64_t begin = std::max<int64_t>(end - layer.window.back * layer.window.size, 0);
    remembered = qkv.narrow(1, begin, end - begin).narrow(2, 1, 2).clone();
  }
  // Only the first head knows positions: the network was trained so.
  const at::Tensor cosines = condition.cosines.narrow(0, condition.before - before, before + rows);
  const at::Tensor sines = condition.sines.narrow(0, condition.before - before, before + rows);
  return layer.out.forward(
      block_attention(qkv, cosines, sines, layer.window).narrow(1, before, rows).flatten(0, 1));
}

at::Tensor Dit::forward(const at::Tensor& x, const DitCondition& condition, const DitModulation& modulation,
                        DitMemory* memory) const {
  const Scope scope(name_);
  if (memory != nullptr) memory->layers.resize(layers_.size());
  // Both halves are rows of one matrix, [2 * frames, hidden].
  at::Tensor h = (dense(x, input_mel_, {}).unsqueeze(0) + condition.rows).flatten(0, 1);
  // A layer norm follows every addition, so the two are one pass, and the next layer's norm is made by this one.
  at::Tensor normed = ada_layer_norm(h, modulation.layers[0].scale, modulation.layers[0].shift, kNormEps);
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    const Scope layer_scope(layer.name);
    const DitModulation::Layer& m = modulation.layers[i];
    normed = gated_add_ada_layer_norm(h, attention(i, normed, condition, memory), m.gate, m.ff_scale,
                                      m.ff_shift, kNormEps);
    const at::Tensor fed = layer.ff_out.forward(layer.ff_in.forward(normed, DenseActivation::kGeluTanh));
    const bool last = i + 1 == layers_.size();
    const at::Tensor& scale = last ? modulation.last_scale : modulation.layers[i + 1].scale;
    const at::Tensor& shift = last ? modulation.last_shift : modulation.layers[i + 1].shift;
    normed = gated_add_ada_layer_norm(h, fed, m.ff_gate, scale, shift, kNormEps);
  }
  return output_.forward(normed).view({condition.rows.size(0), -1, config_.ecapa.mel_dim});
}

at::Tensor schedule_points(int64_t num_steps, std::optional<double> sway_coefficient) {
  const auto options = at::TensorOptions().dtype(at::kFloat);
  at::Tensor points = at::linspace(0, 1, num_steps, options);
  if (sway_coefficient) {
    points += *sway_coefficient * (at::cos(std::numbers::pi / 2 * points) - 1 + points);
  }
  return points;
}

std::shared_ptr<const DitSchedule> DitSchedule::make(const Dit& dit, int64_t num_steps,
                                                     std::optional<double> sway_coefficient) {
  auto schedule = std::make_shared<DitSchedule>();
  schedule->num_steps = num_steps;
  schedule->sway_coefficient = sway_coefficient;
  schedule->points = schedule_points(num_steps, sway_coefficient);
  const at::Tensor& points = schedule->points;
  std::vector<at::Tensor> times;
  for (int64_t i = 0; i + 1 < num_steps; ++i) {
    const at::Tensor width = points[i + 1] - points[i];
    times.insert(times.end(), {points[i], points[i] + width * (1.0 / 3), points[i] + width * (2.0 / 3)});
  }
  times.push_back(points[num_steps - 1]);
  schedule->modulations = dit.modulations(at::stack(times));
  return schedule;
}

DitSolver::DitSolver(const Dit& dit, std::shared_ptr<const DitSchedule> schedule, DitCondition condition,
                     double guidance_scale, at::Tensor noise, DitMemories* memories, int64_t keep)
    : dit_(&dit),
      schedule_(std::move(schedule)),
      condition_(std::move(condition)),
      guidance_scale_(guidance_scale),
      memories_(memories),
      state_(std::move(noise)) {
  if (memories_ == nullptr) return;
  memories_->resize(4 * schedule_->steps());
  for (DitMemory& memory : *memories_) memory.keep = keep;
}

void DitSolver::advance() {
  const at::Tensor width = schedule_->points[step_ + 1] - schedule_->points[step_];
  const double third = 1.0 / 3;
  const size_t stage = slopes_.size();
  at::Tensor at = state_;
  if (stage == 1) at = state_ + width * slopes_[0] * third;
  if (stage == 2) at = state_ + width * (slopes_[1] - slopes_[0] * third);
  if (stage == 3) at = state_ + width * (slopes_[0] - slopes_[1] + slopes_[2]);

  DitMemory* memory = memories_ == nullptr ? nullptr : &(*memories_)[4 * step_ + stage];
  const at::Tensor output = dit_->forward(at, condition_, schedule_->modulations[3 * step_ + stage], memory);
  const at::Tensor slope =
      condition_.guided() ? output[0] + (output[0] - output[1]) * guidance_scale_ : output[0];
  if (stage < 3) {
    slopes_.push_back(slope);
    return;
  }
  state_ = state_ + (slopes_[0] + 3 * (slopes_[1] + slopes_[2]) + slope) * width / 8;
  slopes_.clear();
  ++step_;
}

}  // namespace omni::qwen2_5_omni
