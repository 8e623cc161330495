// token2wav in chunks, against the same codes as a whole: on checkpoints that differ in every dimension, and however the
// codes come.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "expect_error.h"
#include "models/engine.h"
#include "models/qwen2_5_omni_chunks.h"
#include "token2wav_checkpoint.h"

namespace omni {

std::unique_ptr<Engine> open_qwen2_5_omni_token2wav(const EngineConfig& config);

namespace {

// How far samples may lie apart where a chunk sees all that its frames depend on.
constexpr float kExact = 2e-5F;
constexpr int64_t kCodes = 21;           // that the checkpoints know
constexpr int64_t kVocoderContext = 30;  // frames; more than it has

struct Case {
  const char* name;
  nlohmann::json changes;  // of token2wav_config()
  int64_t reach_ahead;     // in blocks, of one evaluation
};

// Blocks of other sizes than codes, layers that look about or not, noise whose length is no multiple of 16.
const std::vector<Case>& cases() {
  static const std::vector<Case> list{
      {"as it is", nlohmann::json::object(), 1},
      {"causal",
       {{"dit_config", {{"look_ahead_layers", nlohmann::json::array()}, {"look_backward_layers", {0, 2}}}}},
       0},
      {"causal, three frames a code, blocks of five",
       {{"dit_config",
         {{"look_ahead_layers", nlohmann::json::array()},
          {"look_backward_layers", {1}},
          {"repeats", 3},
          {"block_size", 5}}}},
       0},
      {"blocks alone",
       {{"dit_config",
         {{"look_ahead_layers", nlohmann::json::array()},
          {"look_backward_layers", nlohmann::json::array()},
          {"block_size", 6}}}},
       0},
      {"far ahead",
       {{"dit_config",
         {{"look_ahead_layers", {0, 1}}, {"look_backward_layers", {2}}, {"repeats", 1}, {"block_size", 3}}}},
       2},
  };
  return list;
}

class Network {
 public:
  explicit Network(const nlohmann::json& changes) {
    nlohmann::json config = token2wav_config();
    config.merge_patch(changes);
    write_token2wav_checkpoint(folder_, config);
    block_ = config["dit_config"]["block_size"];
    repeats_ = config["dit_config"]["repeats"];
    EngineConfig open;
    open.model = "qwen2_5_omni.token2wav";
    open.checkpoint = Checkpoint::open(folder_.path());
    open.dtype = "auto";
    engine_ = open_qwen2_5_omni_token2wav(open);
    int64_t done = 0;
    for (int64_t total = 1; done < total;) engine_->load(done, total);
  }

  Engine& engine() { return *engine_; }
  int64_t block() const { return block_; }
  int64_t repeats() const { return repeats_; }
  int64_t codes_of_blocks(int64_t blocks) const { return (blocks * block_ + repeats_ - 1) / repeats_; }

 private:
  TempFolder folder_;
  int64_t block_;
  int64_t repeats_;
  std::unique_ptr<Engine> engine_;
};

std::vector<int64_t> some_codes(int64_t count, uint64_t seed = 1) {
  std::mt19937_64 random(seed);
  std::vector<int64_t> codes(count);
  for (int64_t& code : codes) code = static_cast<int64_t>(random() % kCodes);
  return codes;
}

void feed(Engine& engine, uint64_t sequence, std::vector<int64_t> codes, bool last) {
  EngineInput input;
  input.tokens = std::move(codes);
  input.last = last;
  engine.feed(sequence, std::move(input));
}

// What came of a sequence so far.
struct Heard {
  std::vector<at::Tensor> pieces;
  SequenceResult last;
  at::Tensor all() const { return pieces.empty() ? at::empty({0}) : at::cat(pieces); }
};

// Steps a sequence until it waits or is over.
void listen(Engine& engine, uint64_t sequence, Heard& heard) {
  do {
    heard.last = engine.step({sequence}).at(0);
    for (const NamedTensor& tensor : heard.last.tensors) heard.pieces.push_back(tensor.tensor);
  } while (heard.last.state == OMNI_SEQUENCE_READY);
  EXPECT_NE(heard.last.state, OMNI_SEQUENCE_FAILED) << heard.last.message;
}

at::Tensor speak(Engine& engine, const nlohmann::json& params, const std::vector<int64_t>& codes) {
  engine.admit(1, params);
  feed(engine, 1, codes, true);
  Heard heard;
  listen(engine, 1, heard);
  EXPECT_EQ(heard.last.state, OMNI_SEQUENCE_DONE);
  engine.release(1);
  return heard.all();
}

nlohmann::json streamed(nlohmann::json params, const nlohmann::json& sizes = nlohmann::json::object()) {
  params["mode"] = "stream";
  params.update(sizes);
  return params;
}

double snr_db(const at::Tensor& expected, const at::Tensor& got) {
  const auto power = [](const at::Tensor& x) { return x.to(at::kDouble).square().sum().item<double>(); };
  return 10 * std::log10(power(expected) / std::max(power(got - expected), 1e-300));
}

class Token2WavStream : public ::testing::Test {
 protected:
  Token2WavStream() { at::set_num_threads(1); }
  c10::InferenceMode inference_;
};

// Frames at the end whose noise may be another than in the whole: torch draws the last 16 values of a tensor anew where
// its length is no multiple of 16, and a frame of these networks has two.
int64_t frames_of_ending(int64_t frames) { return frames * 2 % 16 == 0 ? 0 : 16 / 2; }

// Without layers that look ahead the stream is the whole, at any length and cut anywhere.
TEST_F(Token2WavStream, IsTheWholeIfNothingLooksAhead) {
  std::mt19937 random(3);
  for (const Case& c : cases()) {
    if (c.reach_ahead > 0) continue;
    SCOPED_TRACE(c.name);
    Network network(c.changes);
    for (int round = 0; round < 12; ++round) {
      const int64_t count = 1 + static_cast<int64_t>(random() % 60);
      const nlohmann::json sizes = {{"initial_codec_chunk_frames", 1 + random() % 12},
                                    {"codec_chunk_frames", 1 + random() % 20},
                                    {"codec_right_context_frames", random() % 4}};
      SCOPED_TRACE(std::to_string(count) + " codes, " + sizes.dump());
      const nlohmann::json params = {{"seed", round}, {"num_steps", 4}};
      const std::vector<int64_t> codes = some_codes(count, round);
      const at::Tensor whole = speak(network.engine(), params, codes);
      const at::Tensor stream = speak(network.engine(), streamed(params, sizes), codes);
      ASSERT_EQ(stream.sizes(), whole.sizes());
      const int64_t frames = count * network.repeats();
      const int64_t same = frames - frames_of_ending(frames);
      // Those reach to the beginning of their block, and from there into the sound before it.
      const int64_t samples =
          same == frames
              ? whole.numel()
              : std::max<int64_t>(same / network.block() * network.block() - kVocoderContext, 0) * 6;
      if (samples == 0) continue;
      EXPECT_LE((stream - whole).narrow(0, 0, samples).abs().max().item<float>(), kExact);
    }
  }
}

// With them it is the whole as soon as a chunk sees as far ahead as a solution reaches: the layers' reach once for every
// evaluation. One block less is not enough.
TEST_F(Token2WavStream, IsTheWholeIfAChunkSeesAsFarAsASolutionReaches) {
  for (const Case& c : cases()) {
    if (c.reach_ahead == 0) continue;
    SCOPED_TRACE(c.name);
    Network network(c.changes);
    const int64_t steps = 2;  // two points in time, one step of four evaluations
    const nlohmann::json params = {{"seed", 4}, {"num_steps", steps}};
    const int64_t reach = 4 * (steps - 1) * c.reach_ahead;
    const std::vector<int64_t> codes = some_codes(network.codes_of_blocks(3 * reach + 7));
    const at::Tensor whole = speak(network.engine(), params, codes);
    const auto difference = [&](int64_t blocks) {
      const nlohmann::json sizes = {{"initial_codec_chunk_frames", network.codes_of_blocks(1)},
                                    {"codec_chunk_frames", network.codes_of_blocks(1)},
                                    {"codec_right_context_frames", network.codes_of_blocks(blocks)}};
      const at::Tensor stream = speak(network.engine(), streamed(params, sizes), codes);
      EXPECT_EQ(stream.sizes(), whole.sizes());
      return (stream - whole).abs().max().item<float>();
    };
    EXPECT_LE(difference(reach), kExact);
    // What the last block adds is little after so many layers and evaluations; none of the context is much.
    EXPECT_GT(difference(0), 1e-3F);
  }
}

// More context never hurts much, and the default is near the whole.
TEST_F(Token2WavStream, ComesNearerTheWholeWithMoreContext) {
  for (const Case& c : cases()) {
    if (c.reach_ahead == 0) continue;
    SCOPED_TRACE(c.name);
    Network network(c.changes);
    const std::vector<int64_t> codes = some_codes(150);
    const nlohmann::json params = {{"seed", 5}};
    const at::Tensor whole = speak(network.engine(), params, codes);
    std::vector<double> snr;
    for (const int64_t blocks : {0, 1, 2, 4, 8}) {
      const nlohmann::json sizes = {{"codec_right_context_frames", network.codes_of_blocks(blocks)},
                                    {"codec_chunk_frames", network.codes_of_blocks(4)}};
      snr.push_back(snr_db(whole, speak(network.engine(), streamed(params, sizes), codes)));
    }
    for (size_t i = 1; i < snr.size(); ++i) EXPECT_GT(snr[i], snr[i - 1] - 1) << i;
    EXPECT_GT(snr.back(), snr.front() + 10);
    RecordProperty("snr_db_by_blocks_ahead",
                   at::str(snr[0], " ", snr[1], " ", snr[2], " ", snr[3], " ", snr[4]));
  }
}

// However codes come (one by one, in lumps, all at once, with the end or before it), the bits are the same.
TEST_F(Token2WavStream, ArrivalDoesNotMatter) {
  std::mt19937 random(5);
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.name);
    Network network(c.changes);
    for (const int64_t count : {1, 2, 9, 10, 11, 12, 13, 40}) {
      SCOPED_TRACE(count);
      const std::vector<int64_t> codes = some_codes(count);
      const nlohmann::json params = streamed({{"seed", 6}, {"num_steps", 3}});
      const at::Tensor expected = speak(network.engine(), params, codes);
      for (int round = 0; round < 3; ++round) {
        network.engine().admit(2, params);
        Heard heard;
        for (size_t at = 0; at < codes.size();) {
          const size_t lump = round == 0 ? 1 : std::min<size_t>(random() % 9, codes.size() - at);
          const bool last = round == 2 && at + lump == codes.size();
          feed(network.engine(), 2, {codes.begin() + at, codes.begin() + at + lump}, last);
          at += lump;
          if (random() % 4 != 0) listen(network.engine(), 2, heard);
        }
        if (round != 2) feed(network.engine(), 2, {}, true);
        listen(network.engine(), 2, heard);
        EXPECT_EQ(heard.last.state, OMNI_SEQUENCE_DONE);
        EXPECT_TRUE(at::equal(heard.all(), expected));
        network.engine().release(2);
      }
    }
  }
}

// Sound comes while codes are still missing, and a sequence that waits says how many.
TEST_F(Token2WavStream, SoundBeginsBeforeTheCodesEnd) {
  Network network(nlohmann::json::object());
  const nlohmann::json info = network.engine().info()["stream"];
  network.engine().admit(1, streamed({{"seed", 1}}));
  const std::vector<int64_t> codes = some_codes(100);
  Heard heard;
  std::vector<int64_t> heard_at;
  int64_t wanted = 0;
  for (int64_t i = 0; i < 100; ++i) {
    feed(network.engine(), 1, {codes[i]}, false);
    if (--wanted > 0) continue;
    const size_t before = heard.pieces.size();
    listen(network.engine(), 1, heard);
    EXPECT_EQ(heard.last.state, OMNI_SEQUENCE_WAITING);
    wanted = heard.last.tokens_wanted;
    EXPECT_GT(wanted, 0);
    if (heard.pieces.size() > before) heard_at.push_back(i + 1);
  }
  ASSERT_FALSE(heard_at.empty());
  EXPECT_EQ(heard_at.front(), info["initial_codec_chunk_frames"].get<int64_t>() +
                                  info["codec_right_context_frames"].get<int64_t>());
  EXPECT_GT(heard_at.size(), 5U);
  const int64_t so_far = heard.all().numel();
  EXPECT_GT(so_far, 0);
  feed(network.engine(), 1, {}, true);
  listen(network.engine(), 1, heard);
  EXPECT_EQ(heard.all().numel(), 100 * network.engine().info()["samples_per_code"].get<int64_t>());
}

TEST_F(Token2WavStream, NoCodesMakeNoSound) {
  Network network(nlohmann::json::object());
  EXPECT_EQ(speak(network.engine(), streamed({{"seed", 1}}), {}).numel(), 0);
  EXPECT_EQ(speak(network.engine(), streamed({{"seed", 1}}), {3}).numel(), 12);
}

// Sixteen sequences of different lengths and modes at once, one of them dropped in the middle: bits as alone.
TEST_F(Token2WavStream, SequencesDoNotTouchEachOther) {
  Network network(nlohmann::json::object());
  Engine& engine = network.engine();
  const auto params = [](uint64_t id) {
    const nlohmann::json own = {
        {"seed", id}, {"speaker", id % 2 == 0 ? "Ethan" : "Chelsie"}, {"num_steps", 2 + id % 2}};
    return id % 5 == 0 ? own : streamed(own);
  };
  std::map<uint64_t, at::Tensor> alone;
  std::map<uint64_t, std::vector<int64_t>> codes;
  for (uint64_t id = 1; id <= 16; ++id) {
    codes[id] = some_codes(static_cast<int64_t>(3 + 2 * id), id);
    alone[id] = speak(engine, params(id), codes[id]);
  }
  std::map<uint64_t, Heard> heard;
  std::map<uint64_t, size_t> fed;
  std::vector<uint64_t> running;
  for (uint64_t id = 1; id <= 16; ++id) {
    engine.admit(id, params(id));
    running.push_back(id);
  }
  for (int round = 0; !running.empty(); ++round) {
    ASSERT_LT(round, 10000);
    for (const uint64_t id : running) {
      size_t& at = fed[id];
      if (at == codes[id].size()) continue;
      feed(engine, id, {codes[id][at]}, at + 1 == codes[id].size());
      ++at;
    }
    std::vector<uint64_t> next;
    for (SequenceResult& result : engine.step(running)) {
      for (const NamedTensor& tensor : result.tensors) heard[result.sequence].pieces.push_back(tensor.tensor);
      const bool dropped = result.sequence == 7 && round == 20;
      ASSERT_NE(result.state, OMNI_SEQUENCE_FAILED) << result.message;
      if (result.state == OMNI_SEQUENCE_DONE || dropped) {
        engine.release(result.sequence);
      } else {
        next.push_back(result.sequence);
      }
    }
    running = next;
  }
  for (uint64_t id = 1; id <= 16; ++id) {
    if (id == 7) continue;
    EXPECT_TRUE(at::equal(heard[id].all(), alone[id])) << id;
  }
}

TEST_F(Token2WavStream, BadCodesAreNamedByTheirPlace) {
  Network network(nlohmann::json::object());
  Engine& engine = network.engine();
  engine.admit(1, streamed({{"seed", 1}}));
  std::vector<int64_t> codes = some_codes(60);
  codes[50] = 21;
  feed(engine, 1, codes, false);
  SequenceResult result;
  bool sound = false;
  do {
    result = engine.step({1}).at(0);
    sound = sound || !result.tensors.empty();
  } while (result.state == OMNI_SEQUENCE_READY);
  EXPECT_TRUE(sound);
  EXPECT_EQ(result.state, OMNI_SEQUENCE_FAILED);
  EXPECT_EQ(result.message, "code 21 at position 50 is not in the vocoder's range, 0 to 20");
  feed(engine, 1, {1}, true);  // under way when it failed
  engine.release(1);

  engine.admit(2, streamed({{"seed", 1}}));
  feed(engine, 2, some_codes(201), true);
  do {
    result = engine.step({2}).at(0);
  } while (result.state == OMNI_SEQUENCE_READY);
  EXPECT_EQ(result.state, OMNI_SEQUENCE_FAILED);
  EXPECT_EQ(result.message, "201 codes make 402 mel frames, the model takes at most 400");
}

TEST_F(Token2WavStream, WrongParamsAreRefused) {
  Network network(nlohmann::json::object());
  struct Wrong {
    nlohmann::json params;
    const char* message;
  };
  for (const Wrong& wrong : std::vector<Wrong>{
           {{{"seed", 1}, {"mode", "half"}}, "mode: expected \"full\" or \"stream\", found \"half\""},
           {{{"rng_from_upstream", true}, {"mode", "stream"}}, "mode \"stream\" needs a seed"},
           {{{"seed", 1}, {"initial_codec_chunk_frames", 0}}, "initial_codec_chunk_frames: expected 1 to"},
           {{{"seed", 1}, {"codec_chunk_frames", 1 << 30}}, "codec_chunk_frames: expected 1 to"},
           {{{"seed", 1}, {"codec_right_context_frames", -1}},
            "codec_right_context_frames: expected 0 to"}}) {
    SCOPED_TRACE(wrong.params.dump());
    expect_error([&] { network.engine().admit(1, wrong.params); }, OMNI_INVALID_ARGUMENT, {wrong.message});
  }
  // 8 - 3 is odd: frames do not all make the same number of samples.
  const nlohmann::json kernels = {{"bigvgan_config", {{"upsample_kernel_sizes", {8, 4}}}}};
  Network odd(kernels);
  EXPECT_TRUE(odd.engine().info()["stream"].is_null());
  expect_error([&] { odd.engine().admit(1, streamed({{"seed", 1}})); }, OMNI_INVALID_ARGUMENT,
               {"use mode \"full\""});
  odd.engine().admit(1, {{"seed", 1}});
}

}  // namespace
}  // namespace omni
