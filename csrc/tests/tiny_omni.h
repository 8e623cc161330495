// A Qwen2.5-Omni checkpoint of a few kilobytes with random weights, for tests of engines.
#pragma once

#include <ATen/ATen.h>

#include <cmath>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "models/engine.h"
#include "runtime/checkpoint.h"
#include "tests/temp_checkpoint.h"

namespace omni {

// The folder, and the means to change it before it is opened.
class TinyOmni {
 public:
  TinyOmni() : generator_(at::detail::createCPUGenerator(20)) {
    config = nlohmann::json::parse(R"({
      "dtype": "float32",
      "thinker_config": {"text_config": {
        "vocab_size": 61, "hidden_size": 24, "intermediate_size": 37, "num_hidden_layers": 3,
        "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10, "max_position_embeddings": 96,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 2]}}},
      "talker_config": {
        "vocab_size": 45, "embedding_size": 24, "hidden_size": 20, "intermediate_size": 33, "num_hidden_layers": 2,
        "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 80,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
        "tts_text_end_token_id": 51, "tts_text_pad_token_id": 52, "tts_codec_start_token_id": 41,
        "tts_codec_end_token_id": 42, "tts_codec_pad_token_id": 43, "tts_codec_mask_token_id": 44}})");
  }

  // "qwen2_5_omni.thinker" or ".talker", loaded. The files are written on the first call.
  std::unique_ptr<Engine> open(const std::string& model, const std::string& dtype = "auto",
                               at::Device device = at::kCPU) {
    if (!std::filesystem::exists(folder_.path() + "/config.json")) write();
    EngineConfig engine_config;
    engine_config.model = model;
    engine_config.checkpoint = Checkpoint::open(folder_.path());
    engine_config.dtype = dtype;
    engine_config.device = device;
    for (const auto& [name, factory] : engine_table()) {
      if (name != model) continue;
      std::unique_ptr<Engine> engine = factory(engine_config);
      int64_t done = 0;
      int64_t total = 1;
      while (done < total) engine->load(done, total);
      return engine;
    }
    throw std::runtime_error("no model " + model);
  }

  nlohmann::json config;              // of config.json
  bool tied = false;                  // no output layer in the file
  int64_t poison = -1;                // the token of the thinker that is embedded as NaN
  std::vector<std::string> left_out;  // tensors that are missing from the file

 private:
  void add(const std::string& name, const std::vector<int64_t>& shape, double scale) {
    for (const std::string& missing : left_out) {
      if (missing == name) return;
    }
    at::Tensor values = at::randn(shape, generator_) * scale;
    if (name.find("norm") != std::string::npos) values = values * 0.2 + 1;
    if (name == "thinker.model.embed_tokens.weight" && poison >= 0) values[poison].fill_(std::nan(""));
    values = values.contiguous();
    tensors_.push_back({name, "F32", shape,
                        std::string(static_cast<const char*>(values.const_data_ptr()), values.nbytes())});
  }

  void add_decoder(const std::string& path, const nlohmann::json& model) {
    const auto number = [&](const char* key) { return model.at(key).get<int64_t>(); };
    const int64_t hidden = number("hidden_size");
    const int64_t inner = number("intermediate_size");
    const int64_t queries = number("num_attention_heads") * number("head_dim");
    const int64_t keys = number("num_key_value_heads") * number("head_dim");
    for (int64_t i = 0; i < number("num_hidden_layers"); ++i) {
      const std::string layer = path + ".layers." + std::to_string(i) + ".";
      for (const auto& [name, rows] :
           std::vector<std::pair<std::string, int64_t>>{{"q", queries}, {"k", keys}, {"v", keys}}) {
        add(layer + "self_attn." + name + "_proj.weight", {rows, hidden}, 0.3);
        add(layer + "self_attn." + name + "_proj.bias", {rows}, 0.5);
      }
      add(layer + "self_attn.o_proj.weight", {hidden, queries}, 0.3);
      add(layer + "mlp.gate_proj.weight", {inner, hidden}, 0.3);
      add(layer + "mlp.up_proj.weight", {inner, hidden}, 0.3);
      add(layer + "mlp.down_proj.weight", {hidden, inner}, 0.3);
      add(layer + "input_layernorm.weight", {hidden}, 1);
      add(layer + "post_attention_layernorm.weight", {hidden}, 1);
    }
    add(path + ".norm.weight", {hidden}, 1);
  }

  void write() {
    const nlohmann::json& text = config.at("thinker_config").at("text_config");
    const nlohmann::json& talker = config.at("talker_config");
    const auto vocab = text.at("vocab_size").get<int64_t>();
    const auto hidden = text.at("hidden_size").get<int64_t>();
    const auto codes = talker.at("vocab_size").get<int64_t>();
    const auto talker_hidden = talker.at("hidden_size").get<int64_t>();
    add("thinker.model.embed_tokens.weight", {vocab, hidden}, 1);
    if (!tied) add("thinker.lm_head.weight", {vocab, hidden}, 0.7);
    add_decoder("thinker.model", text);
    add("thinker.audio_tower.proj.weight", {2, 2}, 1);  // nothing uses it
    add("talker.model.embed_tokens.weight", {codes, hidden}, 1);
    add("talker.thinker_to_talker_proj.weight", {talker_hidden, hidden}, 0.3);
    add("talker.thinker_to_talker_proj.bias", {talker_hidden}, 0.5);
    add("talker.codec_head.weight", {codes, talker_hidden}, 0.7);
    add_decoder("talker.model", talker);
    folder_.write("model.safetensors", safetensors_file(tensors_));
    folder_.write("config.json", config.dump());
    // Speakers "Ethan" (token 7) and "Chelsie" (token 9).
    std::filesystem::copy_file(std::string(OMNI_SOURCE_DIR) + "/csrc/tests/testdata/two_speakers.pt",
                               folder_.path() + "/spk_dict.pt");
  }

  TempFolder folder_;
  at::Generator generator_;
  std::vector<FileTensor> tensors_;
};

}  // namespace omni
