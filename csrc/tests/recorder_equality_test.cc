// The recorders see the same: one workload, recorded by each, gives the same events with the same arguments. torch's own
// profiler is the oracle.
#include <ATen/ATen.h>
#include <ATen/ThreadLocalState.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "profiler/recorder.h"
#include "profiler/scope.h"
#include "profiler_files.h"

namespace omni {
namespace {

using nlohmann::json;

void matrices() {
  const at::Tensor a = at::ones({16, 8}), b = at::ones({8, 4}), v = at::ones({4});
  at::addmm(v, a, b, 1, 0.5);
  at::bmm(a.view({4, 4, 8}), b.expand({4, 8, 4}));
  at::baddbmm(at::zeros({4, 4, 4}), a.view({4, 4, 8}), b.expand({4, 8, 4}), -1.5, 2);
  at::einsum("ij,jk->ik", {a, b});
  at::linear(a, b.t(), v);
  at::softmax(a, -1).mul(3).add(a, 1e-12).sub_(1e30);
}

void types() {
  for (const auto dtype :
       {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16, at::kLong, at::kInt, at::kShort, at::kByte,
        at::kChar, at::kBool, at::kComplexFloat, at::kComplexDouble, at::kFloat8_e4m3fn}) {
    at::zeros({2, 3}, dtype).to(at::kFloat).to(dtype).clone();
  }
  at::ones({2}, at::kComplexFloat).mul(c10::complex<double>(1.5, -2)).add(c10::complex<double>(0, 1));
  at::quantize_per_tensor(at::ones({4}), 0.1, 10, at::kQInt8).dequantize();
}

void shapes() {
  at::Tensor scalar = at::scalar_tensor(7.25);
  scalar.add(scalar).sum();
  at::zeros({0, 5}).sum({0}, true);
  at::ones({1}).expand({3, 4}).contiguous();
  at::arange(24).view({2, 3, 4}).permute({2, 0, 1}).flip({0, -1}).select(0, 1);
  at::empty({int64_t{1} << 33, 2}, at::TensorOptions(at::kMeta)).t().add(1);
  at::ones({3, 3}).to_sparse().coalesce().to_dense();
  at::ones({2, 1, 1, 1, 1, 1, 1, 2}).squeeze().unsqueeze(-1);
}

void lists() {
  const std::vector<at::Tensor> few(3, at::ones({2, 2})), many(40, at::ones({1})),
      none_of_size(2, at::ones({0}));
  at::cat(few, 1);
  at::stack(many);
  at::cat(none_of_size);
  at::ones({6}).split_with_sizes({1, 2, 3});
  at::ones({40}).split_with_sizes(std::vector<int64_t>(40, 1));
  at::ones({4, 4}).index({at::ones({2}, at::kLong), at::indexing::None});
  at::upsample_bilinear2d(at::ones({1, 1, 2, 2}), std::vector<int64_t>{4, 4}, false, std::nullopt,
                          std::nullopt);
  at::ones({1, 2, 4}).clamp(std::nullopt, 0.5).clamp(-1e-300, 12345678901.0);
}

void convolutions() {
  const at::Tensor x = at::ones({1, 4, 64});
  at::conv1d(x, at::ones({8, 4, 7}), {}, 2, 3);
  at::conv_transpose1d(x, at::ones({4, 2, 4}), {}, 2, 1);
  at::conv2d(at::ones({2, 4, 10, 12}), at::ones({6, 2, 3, 5}), at::ones({6}), {1, 2}, {1, 0}, {2, 1}, 2);
  at::scaled_dot_product_attention(at::ones({1, 2, 5, 8}), at::ones({1, 2, 7, 8}), at::ones({1, 2, 7, 8}));
  at::layer_norm(x, {64});
  at::rms_norm(x, {64}, at::ones({64}), 1e-6);
}

void scopes() {
  for (int i = 0; i < 3; ++i) {
    const Scope layer("thinker.layers." + std::to_string(i));
    {
      const Scope part("thinker.layers." + std::to_string(i) + ".self_attn");
    }
    const Scope odd("name \"with\" quotes");
    at::ones({2});
  }
}

// Threads that get torch's thread-local state record too, and go away before the end.
void threads() {
  const at::ThreadLocalState state;
  for (int i = 0; i < 3; ++i) {
    std::thread([&state] {
      const at::ThreadLocalStateGuard guard(state);
      const Scope scope("on another thread");
      matrices();
    }).join();
  }
}

// Scopes that are no ops, autograd's sequence numbers, threads of forward ops.
void gradients() {
  const at::Tensor x = at::ones({3, 3}).requires_grad_();
  at::mm(x, x).sin().sum().backward();
}

struct Workload {
  const char* name;
  void (*run)();
};

// What must be the same: everything but times, and numbers that go on counting from run to run. Those are compared by
// the order of their first appearance.
json comparable(const json& event, std::map<int64_t, int>& threads, std::map<int64_t, int>& sequences) {
  json args = event.value("args", json::object());
  if (event["name"].get<std::string>().starts_with("autograd::engine::evaluate_function")) {
    // These have no number of their own: torch's profiler copies the next event's in afterwards.
    args.erase("Sequence number");
    args.erase("Fwd thread id");
  }
  if (args.contains("Sequence number")) {
    const int64_t number = args["Sequence number"];
    args["Sequence number"] = sequences.emplace(number, static_cast<int>(sequences.size())).first->second;
  }
  for (const char* key : {"External id", "Ev Idx", "Addr", "Total Allocated"}) args.erase(key);
  const int thread =
      threads.emplace(event["tid"].get<int64_t>(), static_cast<int>(threads.size())).first->second;
  return {event["name"], event["cat"], thread, args};
}

// The events of a trace in the order of time.
std::vector<json> events_of(const json& trace) {
  std::vector<json> events;
  for (const auto& event : trace["traceEvents"]) {
    const std::string category = event.value("cat", "");
    if (category == "cpu_op" || category == "user_annotation" || category == "cpu_instant_event")
      events.push_back(event);
  }
  std::stable_sort(events.begin(), events.end(), [](const json& a, const json& b) {
    return a["ts"] != b["ts"] ? a["ts"] < b["ts"] : a.value("dur", 0.0) > b.value("dur", 0.0);
  });
  std::map<int64_t, int> threads, sequences;
  std::vector<json> plain;
  plain.reserve(events.size());
  for (const auto& event : events) plain.push_back(comparable(event, threads, sequences));
  return plain;
}

// The column of a table: calls, flops and memory by name.
std::map<std::string, std::string> column(const std::string& table, const std::string& title) {
  std::map<std::string, std::string> values;
  size_t end = std::string::npos;
  std::istringstream lines(table);
  for (std::string line; std::getline(lines, line);) {
    if (end == std::string::npos) {
      const size_t at = line.find(title);
      if (line.find(" Name ") != std::string::npos && at != std::string::npos) end = at + title.size();
      continue;
    }
    if (line.starts_with("---") || line.size() < end) continue;
    const size_t name_end = line.find("  ", line.find_first_not_of(' '));
    const size_t begin = line.rfind("  ", end - 1);
    values[line.substr(0, name_end)] = line.substr(begin + 2, end - begin - 2);
  }
  return values;
}

class EqualityTest : public testing::TestWithParam<Workload> {
 protected:
  struct Recorded {
    std::vector<json> events;
    std::string table;
    json result;
  };

  Recorded record(const std::string& recorder) {
    const json config = {{"recorder", recorder},
                         {"session", "s1"},
                         {"worker", "stage-0"},
                         {"trace_path", (folder_.path() / (recorder + ".gz")).string()},
                         {"table_path", (folder_.path() / (recorder + ".txt")).string()},
                         {"record_shapes", true},
                         {"with_stack", true},
                         {"with_flops", true},
                         {"with_memory", true}};
    auto started = start_recorder(config);
    for (int step = 0; step < 2; ++step) {
      started->step_begin(step);
      GetParam().run();
      started->step_end();
    }
    started->stop();
    Recorded recorded;
    recorded.result = started->finish();
    const json trace = read_trace(recorded.result["files"][0]["path"]);
    EXPECT_EQ(overlaps(trace), std::vector<std::string>()) << recorder;
    recorded.events = events_of(trace);
    recorded.table = read_text(recorded.result["files"][1]["path"]);
    return recorded;
  }

  TemporaryFolder folder_;
};

TEST_P(EqualityTest, SameEventsSameArguments) {
  GetParam().run();  // what torch does only once, it has done
  const Recorded oracle = record("kineto");
  const Recorded stream = record("stream");
  EXPECT_EQ(stream.result["dropped"], json::object());
  EXPECT_EQ(stream.result["events"], oracle.result["events"]);
  ASSERT_FALSE(oracle.events.empty());
  for (size_t i = 0; i < std::min(oracle.events.size(), stream.events.size()); ++i) {
    ASSERT_EQ(stream.events[i], oracle.events[i]) << "event " << i;
  }
  EXPECT_EQ(stream.events.size(), oracle.events.size());
  for (const char* title : {"# of Calls", "CPU Mem", "Self CPU Mem"}) {
    EXPECT_EQ(column(stream.table, title), column(oracle.table, title)) << title;
  }
  const auto flops = [](const std::string& table) {
    const size_t at = table.find("FLOPs");
    return at == std::string::npos
               ? std::map<std::string, std::string>()
               : column(table, table.substr(table.rfind("Total", at), at + 5 - table.rfind("Total", at)));
  };
  EXPECT_EQ(flops(stream.table), flops(oracle.table));
}

INSTANTIATE_TEST_SUITE_P(All, EqualityTest,
                         testing::Values(Workload{"matrices", matrices}, Workload{"types", types},
                                         Workload{"shapes", shapes}, Workload{"lists", lists},
                                         Workload{"convolutions", convolutions}, Workload{"scopes", scopes},
                                         Workload{"threads", threads}, Workload{"gradients", gradients}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace omni
