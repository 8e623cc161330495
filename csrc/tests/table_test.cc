// The operator table against the tables that torch printed for the same events.
#include "profiler/table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace omni {
namespace {

using nlohmann::json;

// Feeds recorded events as a recorder does: in the order of time, ops nested.
void feed(const json& events, TableBuilder& table) {
  std::vector<json> order(events.begin(), events.end());
  std::stable_sort(order.begin(), order.end(), [](const json& a, const json& b) {
    const int64_t a_start = a["start_ns"], b_start = b["start_ns"];
    return a_start != b_start ? a_start < b_start : a.value("end_ns", a_start) > b.value("end_ns", b_start);
  });
  struct Open {
    int64_t end_ns;
    uint64_t flops;
  };
  std::map<int64_t, std::vector<Open>> open;
  const auto close = [&](int64_t thread, int64_t start_ns, int64_t end_ns) {
    auto& stack = open[thread];
    while (!stack.empty() && (stack.back().end_ns <= start_ns || stack.back().end_ns < end_ns)) {
      table.exit(thread, stack.back().end_ns, stack.back().flops);
      stack.pop_back();
    }
  };
  for (const json& event : order) {
    const int64_t thread = event["thread"], start_ns = event["start_ns"];
    if (event.contains("bytes")) {
      close(thread, start_ns - 1, start_ns - 1);
      table.memory(thread, event["bytes"], event.value("device", false));
      continue;
    }
    const int64_t end_ns = event["end_ns"];
    close(thread, start_ns, end_ns);
    table.enter(thread, event["name"].get<std::string>(), event["annotation"], start_ns);
    for (const json& kernel : event.value("kernels", json::array()))
      table.device_work(thread, kernel["name"].get<std::string>(), false, kernel["ns"]);
    open[thread].push_back({end_ns, event["flops"]});
  }
  for (auto& [thread, stack] : open) {
    for (; !stack.empty(); stack.pop_back()) table.exit(thread, stack.back().end_ns, stack.back().flops);
  }
}

class TableGoldenTest : public testing::TestWithParam<const char*> {};

TEST_P(TableGoldenTest, IsTheTextThatTorchPrints) {
  std::ifstream file(std::string(OMNI_SOURCE_DIR "/csrc/tests/testdata/table/") + GetParam() + ".json");
  ASSERT_TRUE(file) << GetParam();
  const json golden = json::parse(file);
  TableBuilder table;
  feed(golden["events"], table);
  const json& options = golden["options"];
  EXPECT_EQ(format_table(table.rows(), {.with_memory = options.value("profile_memory", false),
                                        .with_flops = options.value("with_flops", false)}),
            golden["table"].get<std::string>());
}

INSTANTIATE_TEST_SUITE_P(All, TableGoldenTest,
                         testing::Values("mixed", "mixed_memory", "mixed_flops", "convolutions", "releases",
                                         "many_names", "device"),
                         [](const auto& info) { return std::string(info.param); });

TEST(TableTest, ARowIsALineWhateverTheName) {
  TableBuilder table;
  table.enter(1, "a\nb\tc\x01\x7f\"\\", false, 0);
  table.exit(1, 30, 0);
  const std::string text = format_table(table.rows(), {});
  EXPECT_NE(text.find("\n    a\\nb\\tc\\x01\\x7f\"\\  "), std::string::npos) << text;
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 6) << text;
}

TEST(TableTest, IsEmptyWithoutRows) { EXPECT_EQ(format_table({}, {}), ""); }

TEST(TableTest, OpenOpsAreNotInIt) {
  TableBuilder table;
  table.enter(1, "open", false, 0);
  table.enter(1, "closed", false, 10);
  table.exit(1, 30, 0);
  table.enter(1, "closed", false, 40);
  table.exit(1, 50, 0);
  const std::string text = format_table(table.rows(), {});
  EXPECT_EQ(text.find("open"), std::string::npos);
  EXPECT_NE(text.find("Self CPU time total: 0.030us"), std::string::npos) << text;
}

TEST(TableTest, ThreadsNestByThemselves) {
  TableBuilder table;
  table.enter(1, "outer", false, 0);
  table.enter(2, "other", false, 10);
  table.exit(1, 100, 0);
  table.exit(2, 40, 0);
  ASSERT_EQ(table.rows().size(), 2u);
  EXPECT_EQ(table.rows()[0].self_ns, 100);
  EXPECT_EQ(table.rows()[1].self_ns, 30);
}

TEST(TableTest, AsynchronousOpsHaveNoSelfTime) {
  TableBuilder table;
  table.async_op("future", 500);
  EXPECT_EQ(table.rows()[0].total_ns, 500);
  EXPECT_EQ(table.rows()[0].self_ns, 0);
  EXPECT_NE(format_table(table.rows(), {}).find("NaN"), std::string::npos);
}

TEST(TableTest, SortsByDeviceTimeWhereThereIsAny) {
  TableBuilder table;
  table.enter(1, "aten::mm", false, 0);
  table.device_work(1, "gemm_kernel", false, 2000);
  table.exit(1, 9000, 0);
  table.enter(1, "aten::add", false, 10000);
  table.device_work(1, "add_kernel", false, 3000);
  table.exit(1, 11000, 0);
  const std::string text = format_table(table.rows(), {});
  EXPECT_LT(text.find("add_kernel"), text.find("gemm_kernel")) << text;
  EXPECT_NE(text.find("Self CUDA %"), std::string::npos);
  EXPECT_NE(text.find("Self CUDA time total: 5.000us"), std::string::npos) << text;
  EXPECT_NE(text.find("Self CPU time total: 10.000us"), std::string::npos) << text;
}

}  // namespace
}  // namespace omni
