// The recorders see the same over a long run of real work: decoding, diffusion, a vocoder, and every odd op we know. What
// torch's own profiler holds is right; the multisets of (name, category, thread, shapes, types, values, module) must agree
// to the last event.
//
// OMNI_ORACLE_OPS sets how many events that is: 1000000 takes minutes and is what `make oracle` runs.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/ThreadLocalState.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "models/engine.h"
#include "profiler/recorder.h"
#include "profiler/scope.h"
#include "profiler_files.h"
#include "recorder_workloads.h"
#include "tiny_omni.h"
#include "token2wav_checkpoint.h"

namespace omni {
namespace {

using nlohmann::json;

// How many events an ordinary run compares.
constexpr int64_t kOps = 80000;
// No recorder may be asked for more in one session: all of it fits into the stream recorder's pool, so that nothing
// depends on how fast its writer is, and into the memory that Kineto wants.
constexpr int64_t kSessionOps = 100000;

// A thread that lives as long as the test and does what it is told, with the caller's thread-local state.
class Helper {
 public:
  Helper() : thread_([this] { serve(); }) {}
  ~Helper() {
    run(nullptr);
    thread_.join();
  }

  // Runs work and waits for its end. Null ends the thread.
  void run(std::function<void()> work) {
    std::unique_lock lock(mutex_);
    work_ = std::move(work);
    posted_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return !posted_; });
  }

  int64_t id() const { return id_; }

 private:
  void serve() {
    id_ = ::syscall(SYS_gettid);
    for (bool more = true; more;) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return posted_; });
      more = work_ != nullptr;
      if (more) work_();
      posted_ = false;
      changed_.notify_all();
    }
  }

  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::function<void()> work_;
  bool posted_ = false;
  std::atomic<int64_t> id_{0};
  std::thread thread_;
};

// One round of work: the same ops every time.
class Work {
 public:
  Work() {
    write_token2wav_checkpoint(code2wav_folder_, token2wav_config());
    const c10::InferenceMode inference;
    thinker_ = tiny_.open("qwen2_5_omni.thinker");
    code2wav_ = open_engine({{"model", "qwen2_5_omni.token2wav"}, {"checkpoint", code2wav_folder_.path()}});
    int64_t done = 0;
    for (int64_t total = 1; done < total;) code2wav_->load(done, total);
  }

  void round() {
    {
      const c10::InferenceMode inference;
      think(1, {1, 2, 3, 4, 5});
      think(2, {7, 8});
      speak();
    }
    for (const auto run :
         {workloads::matrices, workloads::types, workloads::shapes, workloads::lists, workloads::convolutions,
          workloads::scopes, workloads::threads, workloads::gradients, workloads::views,
          workloads::odd_arguments, workloads::failures, workloads::second_gradients}) {
      run();
    }
    // Threads that stay, one after the other and both at once.
    const at::ThreadLocalState state;
    for (Helper& helper : helpers_) {
      helper.run([&state] {
        const at::ThreadLocalStateGuard guard(state);
        const Scope scope("on a helper");
        workloads::views();
      });
    }
    std::thread beside([&] {
      helpers_[0].run([&state] {
        const at::ThreadLocalStateGuard guard(state);
        workloads::matrices();
      });
    });
    workloads::lists();
    beside.join();
  }

  // Threads that are there before and after a recording: others are the same to the comparison.
  std::set<int64_t> threads() const { return {::syscall(SYS_gettid), helpers_[0].id(), helpers_[1].id()}; }

 private:
  void think(uint64_t sequence, const std::vector<int64_t>& prompt) {
    thinker_->admit(
        sequence, {{"prompt_token_ids", prompt},
                   {"sampling", {{"temperature", 0.8}, {"top_k", 5}, {"max_tokens", 20}, {"min_tokens", 20}}},
                   {"seed", 3},
                   {"emit_rows", true}});
    for (int i = 0; i < 20; ++i) thinker_->step({sequence});
    thinker_->release(sequence);
  }

  void speak() {
    code2wav_->admit(1, {{"seed", 1}});
    EngineInput input;
    input.tokens = {3, 10, 17};
    input.last = true;
    code2wav_->feed(1, std::move(input));
    while (code2wav_->step({1}).at(0).state == OMNI_SEQUENCE_READY) {
    }
    code2wav_->release(1);
  }

  TinyOmni tiny_;
  TempFolder code2wav_folder_;
  std::unique_ptr<Engine> thinker_, code2wav_;
  std::array<Helper, 2> helpers_;
};

using Multiset = std::map<std::string, int64_t>;

// Removes "key":123 and a comma beside it from the text of an event.
void cut_number(std::string& line, std::string_view key) {
  size_t at = line.find("\"" + std::string(key) + "\":");
  if (at == std::string::npos) return;
  size_t end = line.find_first_not_of("0123456789.-", at + key.size() + 3);
  if (line[end] == ',') {
    ++end;
  } else if (line[at - 1] == ',') {
    --at;
  }
  line.erase(at, end - at);
}

// Adds the events of a trace, an event a line, without what is different every time: times, numbers that go on counting,
// and the numbers of threads that come and go.
void add_events(const std::string& text, const std::set<int64_t>& threads, Multiset& out) {
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string line = text.substr(at, end - at);
    at = end + 1;
    const bool op = line.find("\"cat\":\"cpu_op\"") != std::string::npos;
    if (!op && line.find("\"cat\":\"user_annotation\"") == std::string::npos) continue;
    if (line.back() == ',') line.pop_back();
    const size_t tid = line.find("\"tid\":");
    if (!threads.contains(std::stoll(line.substr(tid + 6)))) cut_number(line, "tid");
    for (const char* key :
         {"ts", "dur", "External id", "Record function id", "Sequence number", "Fwd thread id", "Ev Idx"}) {
      cut_number(line, key);
    }
    ++out[line];
  }
}

class OracleTest : public testing::Test {
 protected:
  OracleTest() { at::set_num_threads(1); }

  // Records rounds in sessions of so many and adds their events up. Returns how many there were.
  int64_t record(const std::string& recorder, int64_t rounds, int64_t rounds_per_session, Multiset& out) {
    int64_t events = 0;
    for (int64_t done = 0; done < rounds;) {
      const std::string path = (folder_.path() / (recorder + std::to_string(done) + ".json")).string();
      const auto started = start_recorder({{"recorder", recorder},
                                           {"session", "s1"},
                                           {"worker", "stage-0"},
                                           {"trace_path", path},
                                           {"use_gzip", false},
                                           {"record_shapes", true},
                                           {"with_stack", true},
                                           {"with_flops", true}});
      for (int64_t i = 0; i < rounds_per_session && done < rounds; ++i, ++done) {
        started->step_begin(done);
        work_.round();
        started->step_end();
      }
      started->stop();
      const json result = started->finish();
      EXPECT_EQ(result["dropped"], json::object()) << recorder;
      events += result["events"].get<int64_t>();
      add_events(read_text(path), work_.threads(), out);
      std::filesystem::remove(path);
    }
    return events;
  }

  TemporaryFolder folder_;
  Work work_;
};

TEST_F(OracleTest, BothRecordersHoldTheSameEvents) {
  const char* wanted = std::getenv("OMNI_ORACLE_OPS");
  const int64_t ops = wanted == nullptr ? kOps : std::stoll(wanted);
  work_.round();  // what torch does only once, it has done
  Multiset one;
  const int64_t per_round = record("stream", 1, 1, one);
  const int64_t rounds = (ops + per_round - 1) / per_round;
  const int64_t rounds_per_session = std::max<int64_t>(1, kSessionOps / per_round);
  Multiset stream, kineto;
  const int64_t stream_events = record("stream", rounds, rounds_per_session, stream);
  const int64_t kineto_events = record("kineto", rounds, rounds_per_session, kineto);
  std::cout << stream_events << " events in " << rounds << " rounds, " << stream.size() << " different\n";
  EXPECT_GE(stream_events, ops);
  EXPECT_EQ(stream_events, kineto_events);
  int differences = 0;
  const auto compare = [&](const Multiset& a, const Multiset& b, const char* name) {
    for (const auto& [event, count] : a) {
      const auto it = b.find(event);
      const int64_t other = it == b.end() ? 0 : it->second;
      if (other >= count || ++differences > 10) continue;
      ADD_FAILURE() << name << " holds " << count - other << " more of " << event;
    }
  };
  compare(stream, kineto, "stream");
  compare(kineto, stream, "kineto");
  EXPECT_EQ(differences, 0);
}

}  // namespace
}  // namespace omni
