// The recorders see the same: one workload, recorded by each, gives the same events with the same arguments. torch's own
// profiler is the oracle.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "profiler/recorder.h"
#include "profiler_files.h"
#include "recorder_workloads.h"

namespace omni {
namespace {

using nlohmann::json;

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

// A column of a table with the names of its rows, which are shortened: two ops may have the same.
using Column = std::multiset<std::pair<std::string, std::string>>;

Column column(const std::string& table, const std::string& title) {
  Column values;
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
    values.emplace(line.substr(0, name_end), line.substr(begin + 2, end - begin - 2));
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
               ? Column()
               : column(table, table.substr(table.rfind("Total", at), at + 5 - table.rfind("Total", at)));
  };
  EXPECT_EQ(flops(stream.table), flops(oracle.table));
}

INSTANTIATE_TEST_SUITE_P(
    All, EqualityTest,
    testing::Values(Workload{"matrices", workloads::matrices}, Workload{"types", workloads::types},
                    Workload{"shapes", workloads::shapes}, Workload{"lists", workloads::lists},
                    Workload{"convolutions", workloads::convolutions}, Workload{"scopes", workloads::scopes},
                    Workload{"threads", workloads::threads}, Workload{"gradients", workloads::gradients},
                    Workload{"views", workloads::views}, Workload{"odd_arguments", workloads::odd_arguments},
                    Workload{"failures", workloads::failures},
                    Workload{"second_gradients", workloads::second_gradients}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace omni
