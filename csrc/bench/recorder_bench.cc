// What the recorders cost, measured. Each command prints one JSON object on the last line of its output; see usage() for
// them. Comparisons come as pairs, without and with the recorder in turn, so that the machine's moods cancel out:
// divide within pairs, then take the median.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/record_function.h>
#include <c10/core/InferenceMode.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "models/engine.h"
#include "profiler/recorder.h"

namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr std::string_view kUsage = R"(usage: recorder_bench COMMAND [FLAG VALUE]...
  ops      additions of 64x64 matrices      --recorder R --ops N --pairs P --dir D [--shapes]
           {"off_ns_per_op":[..],"on_ns_per_op":[..],"overhead_ns_per_op":[..]} of the thread's processor time; R may also be empty: callbacks that do nothing
  decode   the thinker of a checkpoint      --checkpoint C --recorder R --tokens T --pairs P --dir D [--shapes] [--ring SECONDS] [--no-files]
           {"off_ms":[..],"on_ms":[..],"events_per_token":x,"overhead_ms":[..]}; R as in ops, or none: what differs then is noise
  session  one recording of N events        --recorder R --events N --dir D [--shapes]
           {"events","dropped","stop_ms","closed_ms","table_ms","bytes","rss_before_mb","rss_peak_mb","rss_after_mb","overhead_ns_per_op"}
  soak     many short recordings            --recorder R --sessions N --ops M --dir D
           {"rss_first_mb","rss_last_mb","ms_per_session"}
  --recorder is stream or kineto. overhead_* is what the recorder itself reports. Files go to D and are removed.
)";

class Flags {
 public:
  Flags(int argc, char** argv) {
    for (int i = 2; i < argc; ++i) {
      const std::string name = argv[i];
      if (!name.starts_with("--")) throw std::runtime_error("expected a flag, found " + name);
      const bool has_value = i + 1 < argc && !std::string_view(argv[i + 1]).starts_with("--");
      values_[name.substr(2)] = has_value ? argv[++i] : "1";
    }
  }

  std::string text(const std::string& name) const {
    const auto it = values_.find(name);
    if (it == values_.end()) throw std::runtime_error("--" + name + " is missing");
    return it->second;
  }
  int64_t integer(const std::string& name) const { return std::stoll(text(name)); }
  double number(const std::string& name, double fallback) const {
    return values_.contains(name) ? std::stod(values_.at(name)) : fallback;
  }
  bool on(const std::string& name) const { return number(name, 0) != 0; }

 private:
  std::map<std::string, std::string> values_;
};

double ms_since(Clock::time_point began) {
  return std::chrono::duration<double, std::milli>(Clock::now() - began).count();
}

// A field of /proc/self/status, in megabytes.
double status_mb(const std::string& field) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(field + ":")) return std::stod(line.substr(field.size() + 1)) / 1024;
  }
  return 0;
}

// Recordings into a folder, whose files are removed when their result has been read.
class Recordings {
 public:
  explicit Recordings(const Flags& flags)
      : recorder_(flags.text("recorder")),
        shapes_(flags.on("shapes")),
        files_(!flags.on("no-files")),
        ring_seconds_(flags.number("ring", 0)),
        folder_(flags.text("dir")) {
    fs::create_directories(folder_);
  }

  std::unique_ptr<omni::Recorder> start() {
    ++number_;
    json config = {{"recorder", recorder_},
                   {"session", "s" + std::to_string(number_)},
                   {"worker", "bench"},
                   {"record_shapes", shapes_}};
    if (ring_seconds_ > 0) {
      config["ring_seconds"] = ring_seconds_;
    } else if (files_) {
      config["trace_path"] = path(".pt.trace.json.gz");
      config["table_path"] = path(".txt");
    }
    return omni::start_recorder(config);
  }

  json finish(omni::Recorder& recorder) {
    json result = recorder.finish();
    for (const auto& file : result["files"]) fs::remove(file["path"].get<std::string>());
    return result;
  }

 private:
  std::string path(const std::string& suffix) const {
    const std::string name = std::to_string(::getpid()) + "_" + std::to_string(number_) + suffix;
    return (folder_ / name).string();
  }

  const std::string recorder_;
  const bool shapes_;
  const bool files_;
  const double ring_seconds_;
  const fs::path folder_;
  int number_ = 0;
};

void add_matrices(int64_t count) {
  static const at::Tensor a = at::ones({64, 64}), b = at::ones({64, 64});
  for (int64_t i = 0; i < count; ++i) at::add(a, b);
}

// Processor time of this thread, which other programs disturb less than the clock's.
double thread_ns() {
  timespec used{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
  return static_cast<double>(used.tv_sec) * 1e9 + static_cast<double>(used.tv_nsec);
}

// Callbacks that do nothing, while it exists: what torch's own part costs.
class EmptyCallbacks {
 public:
  explicit EmptyCallbacks(bool inputs) {
    at::RecordFunctionCallback callback(
        [](const at::RecordFunction&) -> std::unique_ptr<at::ObserverContext> { return nullptr; },
        [](const at::RecordFunction&, at::ObserverContext*) {});
    handle_ = at::addThreadLocalCallback(callback.needsInputs(inputs));
  }
  ~EmptyCallbacks() { at::removeCallback(handle_); }
  EmptyCallbacks(const EmptyCallbacks&) = delete;
  EmptyCallbacks& operator=(const EmptyCallbacks&) = delete;

 private:
  at::CallbackHandle handle_;
};

double ops_ns(int64_t count) {
  const double began = thread_ns();
  add_matrices(count);
  return (thread_ns() - began) / static_cast<double>(count);
}

json ops(const Flags& flags) {
  const int64_t count = flags.integer("ops");
  const bool empty = flags.text("recorder") == "empty";
  Recordings recordings(flags);
  json off = json::array(), on = json::array(), overhead = json::array();
  ops_ns(count);
  for (int64_t pair = 0; pair < flags.integer("pairs"); ++pair) {
    off.push_back(ops_ns(count));
    if (empty) {
      const EmptyCallbacks callbacks(flags.on("shapes"));
      on.push_back(ops_ns(count));
      continue;
    }
    const auto recorder = recordings.start();
    on.push_back(ops_ns(count));
    recorder->stop();
    const json result = recordings.finish(*recorder);
    overhead.push_back(result["overhead_ns"].get<double>() / static_cast<double>(count));
  }
  return {{"off_ns_per_op", off}, {"on_ns_per_op", on}, {"overhead_ns_per_op", overhead}};
}

// A thinker with one sequence that decodes.
class Decoder {
 public:
  explicit Decoder(const std::string& checkpoint)
      : engine_(omni::open_engine({{"model", "qwen2_5_omni.thinker"}, {"checkpoint", checkpoint}})) {
    int64_t done = 0;
    for (int64_t total = 1; done < total;) engine_->load(done, total);
  }

  void begin(int64_t tokens) {
    engine_->admit(
        1, {{"prompt_token_ids", {1, 2, 3, 4, 5, 6, 7, 8}},
            {"sampling", {{"temperature", 0.0}, {"max_tokens", tokens + 1}, {"min_tokens", tokens + 1}}},
            {"seed", 7}});
    engine_->step({1});
  }
  void step() { engine_->step({1}); }
  void end() { engine_->release(1); }

 private:
  std::unique_ptr<omni::Engine> engine_;
};

double decode_ms(Decoder& decoder, int64_t tokens, omni::Recorder* recorder) {
  const auto began = Clock::now();
  for (int64_t i = 0; i < tokens; ++i) {
    if (recorder != nullptr) recorder->step_begin(i);
    decoder.step();
    if (recorder != nullptr) recorder->step_end();
  }
  return ms_since(began);
}

// One answer's decoding, in milliseconds, and what a recorder said of it.
struct DecodeRun {
  double ms = 0;
  double events = 0;
  double overhead_ms = 0;
};

// Decodes with the recorder that `flags` name, or with none.
DecodeRun decode_run(Decoder& decoder, const Flags& flags, bool record, Recordings& recordings) {
  const int64_t tokens = flags.integer("tokens");
  const std::string recorder_name = record ? flags.text("recorder") : "none";
  DecodeRun run;
  decoder.begin(tokens);
  if (recorder_name == "none") {
    run.ms = decode_ms(decoder, tokens, nullptr);
  } else if (recorder_name == "empty") {
    const EmptyCallbacks callbacks(flags.on("shapes"));
    run.ms = decode_ms(decoder, tokens, nullptr);
  } else {
    const auto recorder = recordings.start();
    run.ms = decode_ms(decoder, tokens, recorder.get());
    recorder->stop();
    const omni::RecorderStatus status = recorder->status();
    run.events = static_cast<double>(status.events);
    run.overhead_ms = static_cast<double>(status.overhead_ns) / 1e6;
    recordings.finish(*recorder);
  }
  decoder.end();
  return run;
}

json decode(const Flags& flags) {
  Decoder decoder(flags.text("checkpoint"));
  Recordings recordings(flags);
  json off = json::array(), on = json::array(), overhead = json::array();
  double events = 0;
  for (int64_t pair = -1; pair < flags.integer("pairs"); ++pair) {
    // Every second pair begins with the recorder, so that coming first favours neither.
    const bool recorder_first = pair % 2 == 1;
    const DecodeRun first = decode_run(decoder, flags, recorder_first, recordings);
    const DecodeRun second = decode_run(decoder, flags, !recorder_first, recordings);
    if (pair < 0) continue;  // warms up
    const DecodeRun& with = recorder_first ? first : second;
    off.push_back((recorder_first ? second : first).ms);
    on.push_back(with.ms);
    overhead.push_back(with.overhead_ms);
    events = with.events;
  }
  return {{"off_ms", off},
          {"on_ms", on},
          {"overhead_ms", overhead},
          {"events_per_token", events / static_cast<double>(flags.integer("tokens"))}};
}

json session(const Flags& flags) {
  Recordings recordings(flags);
  add_matrices(1000);
  const double before = status_mb("VmRSS");
  std::ofstream("/proc/self/clear_refs") << 5;  // VmHWM counts from here
  const int64_t events = flags.integer("events");
  auto recorder = recordings.start();
  add_matrices(events);
  const auto stop = Clock::now();
  recorder->stop();
  const double stop_ms = ms_since(stop);
  const json result = recordings.finish(*recorder);
  const double closed_ms = ms_since(stop);
  recorder.reset();
  return {{"events", result["events"]},
          {"dropped", result["dropped"]},
          {"stop_ms", stop_ms},
          {"closed_ms", closed_ms},
          {"table_ms", result["table_ms"]},
          {"bytes", result["files"][0]["bytes"]},
          {"rss_before_mb", before},
          {"rss_peak_mb", status_mb("VmHWM")},
          {"rss_after_mb", status_mb("VmRSS")},
          {"overhead_ns_per_op", result["overhead_ns"].get<double>() / static_cast<double>(events)}};
}

json soak(const Flags& flags) {
  constexpr int64_t kSettled = 50;
  Recordings recordings(flags);
  const int64_t sessions = flags.integer("sessions");
  double first = 0;
  const auto began = Clock::now();
  for (int64_t i = 0; i < sessions; ++i) {
    auto recorder = recordings.start();
    add_matrices(flags.integer("ops"));
    recorder->stop();
    recordings.finish(*recorder);
    if (i == std::min(kSettled, sessions - 1)) first = status_mb("VmRSS");
  }
  return {{"rss_first_mb", first},
          {"rss_last_mb", status_mb("VmRSS")},
          {"ms_per_session", ms_since(began) / static_cast<double>(sessions)}};
}

int run(int argc, char** argv) {
  const std::map<std::string_view, json (*)(const Flags&)> commands = {
      {"ops", ops}, {"decode", decode}, {"session", session}, {"soak", soak}};
  const auto command = argc < 2 ? commands.end() : commands.find(argv[1]);
  if (command == commands.end()) {
    std::cerr << kUsage;
    return 2;
  }
  const c10::InferenceMode inference;
  const Flags flags(argc, argv);
  if (command->first != "decode") at::set_num_threads(1);
  std::cout << command->second(flags).dump() << std::endl;
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "recorder_bench: " << error.what() << "\n";
    return 1;
  }
}
