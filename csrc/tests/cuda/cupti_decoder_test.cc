// Every kind of record, from bytes that were built here: CUPTI is not called, so no driver is needed.
#include "cuda/plugin/cupti_decoder.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "cuda/cupti_records.h"

namespace omni::cuda {
namespace {

class Collected final : public ActivitySink {
 public:
  void activity(const GpuActivity& activity) override { all.push_back(activity); }
  std::vector<GpuActivity> all;
};

// What one buffer with this record decodes to.
template <typename Record>
GpuActivity decode_one(CuptiDecoder& decoder, const Record& record) {
  RecordBuffer buffer;
  buffer.add(record);
  Collected collected;
  buffer.decode(decoder, collected);
  EXPECT_EQ(collected.all.size(), 1U);
  return collected.all.empty() ? GpuActivity() : collected.all.front();
}

class CuptiDecoderTest : public ::testing::Test {
 protected:
  CuptiDecoder decoder{&api_name, {test_device(0)}};
};

TEST_F(CuptiDecoderTest, Kernel) {
  CUpti_ActivityKernel11 record = kernel_record("_ZN2at6native4copyIfEEvPT_i", 1000, 1750, 7, 42);
  record.graphNodeId = 99;
  record.graphId = 5;
  record.channelID = 11;
  record.channelType = CUPTI_CHANNEL_TYPE_COMPUTE;
  record.priority = -1;
  const GpuActivity a = decode_one(decoder, record);
  EXPECT_EQ(a.kind, ActivityKind::kKernel);
  EXPECT_EQ(a.name, "void at::native::copy<float>(float*, int)");
  EXPECT_EQ(a.start, 1000U);
  EXPECT_EQ(a.end, 1750U);
  EXPECT_EQ(a.device, 0U);
  EXPECT_EQ(a.context, 1U);
  EXPECT_EQ(a.stream, 7U);
  EXPECT_EQ(a.correlation, 42U);
  EXPECT_EQ(a.graph_node, 99U);
  EXPECT_EQ(a.graph, 5U);
  EXPECT_EQ(a.channel, 11U);
  EXPECT_EQ(a.channel_type, CUPTI_CHANNEL_TYPE_COMPUTE);
  EXPECT_EQ(a.priority, -1);
  EXPECT_EQ(a.registers, 32U);
  EXPECT_EQ(a.shared_memory, 1536);
  EXPECT_EQ(a.grid, (std::array<int32_t, 3>{216, 1, 1}));
  EXPECT_EQ(a.block, (std::array<int32_t, 3>{256, 1, 1}));
}

// 216 blocks of 8 warps on 108 multiprocessors, of whose 64 warps each 16 are then busy.
TEST_F(CuptiDecoderTest, OccupancyComesFromTheDevice) {
  CUpti_ActivityKernel11 record = kernel_record("k", 1, 2, 7, 1);
  const GpuActivity a = decode_one(decoder, record);
  EXPECT_FLOAT_EQ(a.blocks_per_sm, 2);
  EXPECT_FLOAT_EQ(a.warps_per_sm, 16);
  EXPECT_FLOAT_EQ(a.occupancy, 25);

  record.gridX = 100000;  // more than fits: 8 blocks of 256 threads fill the 2048 places
  EXPECT_FLOAT_EQ(decode_one(decoder, record).occupancy, 100);
  record.registersPerThread = 128;  // 65536 registers are 512 threads
  EXPECT_FLOAT_EQ(decode_one(decoder, record).occupancy, 25);
  record.dynamicSharedMemory = 100 << 10;  // one block in 164 KB
  EXPECT_FLOAT_EQ(decode_one(decoder, record).occupancy, 12.5);

  record.deviceId = 3;
  const GpuActivity unknown = decode_one(decoder, record);
  EXPECT_LT(unknown.blocks_per_sm, 0);
  EXPECT_LT(unknown.occupancy, 0);
}

TEST_F(CuptiDecoderTest, KernelWithoutName) {
  EXPECT_EQ(decode_one(decoder, kernel_record(nullptr, 1, 2, 7, 1)).name, "unknown kernel");
}

TEST_F(CuptiDecoderTest, KernelOfPlainC) {
  EXPECT_EQ(decode_one(decoder, kernel_record("ampere_sgemm_32x32", 1, 2, 7, 1)).name, "ampere_sgemm_32x32");
}

TEST_F(CuptiDecoderTest, Memcpy) {
  CUpti_ActivityMemcpy6 record =
      memcpy_record(CUPTI_ACTIVITY_MEMCPY_KIND_HTOD, CUPTI_ACTIVITY_MEMORY_KIND_PINNED,
                    CUPTI_ACTIVITY_MEMORY_KIND_DEVICE, 4096, 10, 30, 7, 8);
  record.graphNodeId = 3;
  record.graphId = 2;
  const GpuActivity a = decode_one(decoder, record);
  EXPECT_EQ(a.kind, ActivityKind::kMemcpy);
  EXPECT_EQ(a.name, "Memcpy HtoD (Pinned -> Device)");
  EXPECT_EQ(a.bytes, 4096U);
  EXPECT_EQ(a.start, 10U);
  EXPECT_EQ(a.end, 30U);
  EXPECT_EQ(a.stream, 7U);
  EXPECT_EQ(a.correlation, 8U);
  EXPECT_EQ(a.graph_node, 3U);
  EXPECT_EQ(a.graph, 2U);
}

TEST_F(CuptiDecoderTest, MemcpyNames) {
  const auto name = [&](uint8_t kind, uint8_t from, uint8_t to) {
    return std::string(decode_one(decoder, memcpy_record(kind, from, to, 1, 1, 2, 7, 1)).name);
  };
  EXPECT_EQ(name(2, 3, 1), "Memcpy DtoH (Device -> Pageable)");
  EXPECT_EQ(name(8, 3, 3), "Memcpy DtoD (Device -> Device)");
  EXPECT_EQ(name(9, 5, 7), "Memcpy HtoH (Managed -> Managed Static)");
  EXPECT_EQ(name(200, 100, 0), "Memcpy Unknown (Unknown -> Unknown)");
}

TEST_F(CuptiDecoderTest, CopyBetweenDevices) {
  CUpti_ActivityMemcpyPtoP4 record{};
  record.kind = CUPTI_ACTIVITY_KIND_MEMCPY2;
  record.copyKind = CUPTI_ACTIVITY_MEMCPY_KIND_PTOP;
  record.srcKind = record.dstKind = CUPTI_ACTIVITY_MEMORY_KIND_DEVICE;
  record.bytes = 77;
  record.start = 5;
  record.end = 6;
  record.deviceId = 1;
  record.streamId = 13;
  record.correlationId = 4;
  const GpuActivity a = decode_one(decoder, record);
  EXPECT_EQ(a.kind, ActivityKind::kMemcpy);
  EXPECT_EQ(a.name, "Memcpy PtoP (Device -> Device)");
  EXPECT_EQ(a.device, 1U);
  EXPECT_EQ(a.bytes, 77U);
  EXPECT_EQ(a.correlation, 4U);
}

TEST_F(CuptiDecoderTest, Memset) {
  const GpuActivity a = decode_one(decoder, memset_record(512, 10, 12, 9, 3));
  EXPECT_EQ(a.kind, ActivityKind::kMemset);
  EXPECT_EQ(a.name, "Memset (Device)");
  EXPECT_EQ(a.bytes, 512U);
  EXPECT_EQ(a.stream, 9U);
  EXPECT_EQ(a.correlation, 3U);
}

TEST_F(CuptiDecoderTest, CallsOfTheRuntime) {
  const GpuActivity a =
      decode_one(decoder, api_record(CUPTI_ACTIVITY_KIND_RUNTIME,
                                     CUPTI_RUNTIME_TRACE_CBID_cudaLaunchKernel_v7000, 100, 200, 11, 12, 13));
  EXPECT_EQ(a.kind, ActivityKind::kRuntime);
  EXPECT_EQ(a.name, "cudaLaunchKernel");
  EXPECT_EQ(a.cbid, static_cast<uint32_t>(CUPTI_RUNTIME_TRACE_CBID_cudaLaunchKernel_v7000));
  EXPECT_EQ(a.start, 100U);
  EXPECT_EQ(a.end, 200U);
  EXPECT_EQ(a.process, 11U);
  EXPECT_EQ(a.thread, 12U);
  EXPECT_EQ(a.correlation, 13U);
  // The name that HTA looks for, also where the toolkit has given the function another.
  EXPECT_EQ(
      decode_one(decoder, api_record(CUPTI_ACTIVITY_KIND_RUNTIME,
                                     CUPTI_RUNTIME_TRACE_CBID___cudaLaunchKernel_ptsz_v13000, 1, 2, 1, 1, 1))
          .name,
      "cudaLaunchKernel");
  EXPECT_EQ(decode_one(decoder, api_record(CUPTI_ACTIVITY_KIND_RUNTIME, 100000, 1, 2, 1, 1, 1)).name,
            "runtime call 100000");
}

TEST_F(CuptiDecoderTest, CallsOfTheDriver) {
  const GpuActivity a = decode_one(
      decoder,
      api_record(CUPTI_ACTIVITY_KIND_DRIVER, CUPTI_DRIVER_TRACE_CBID_cuLaunchKernel_ptsz, 1, 2, 3, 4, 5));
  EXPECT_EQ(a.kind, ActivityKind::kDriver);
  EXPECT_EQ(a.name, "cuLaunchKernel");
}

TEST_F(CuptiDecoderTest, ExternalCorrelation) {
  const GpuActivity a = decode_one(decoder, external_record(21, uint64_t{1} << 40));
  EXPECT_EQ(a.kind, ActivityKind::kExternal);
  EXPECT_EQ(a.correlation, 21U);
  EXPECT_EQ(a.external_id, uint64_t{1} << 40);

  CUpti_ActivityExternalCorrelation foreign = external_record(21, 1);
  foreign.externalKind = CUPTI_EXTERNAL_CORRELATION_KIND_OPENACC;
  RecordBuffer buffer;
  buffer.add(foreign);
  Collected collected;
  buffer.decode(decoder, collected);
  EXPECT_TRUE(collected.all.empty());
}

TEST_F(CuptiDecoderTest, Synchronization) {
  const std::map<CUpti_ActivitySynchronizationType, std::string> names = {
      {CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_STREAM_SYNCHRONIZE, "Stream Sync"},
      {CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_EVENT_SYNCHRONIZE, "Event Sync"},
      {CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_STREAM_WAIT_EVENT, "Stream Wait Event"},
      {CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_CONTEXT_SYNCHRONIZE, "Context Sync"},
      {CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_UNKNOWN, "Unknown Sync"},
  };
  for (const auto& [type, name] : names) {
    CUpti_ActivitySynchronization2 record = sync_record(type, 10, 20, 7, 5);
    record.cudaEventId = 17;
    const GpuActivity a = decode_one(decoder, record);
    EXPECT_EQ(a.kind, ActivityKind::kSync);
    EXPECT_EQ(a.name, name);
    EXPECT_EQ(a.stream, 7U);
    const bool for_event = name.find("Event") != std::string::npos;
    EXPECT_EQ(a.event, for_event ? 17U : kNoEvent) << name;
  }
  CUpti_ActivitySynchronization2 record =
      sync_record(CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_CONTEXT_SYNCHRONIZE, 10, 20,
                  static_cast<uint32_t>(CUPTI_SYNCHRONIZATION_INVALID_VALUE), 5);
  EXPECT_EQ(decode_one(decoder, record).stream, kNoStream);
}

TEST_F(CuptiDecoderTest, EventsThatStreamsReach) {
  const GpuActivity a = decode_one(decoder, event_record(17, 1000, 7, 5));
  EXPECT_EQ(a.kind, ActivityKind::kEventRecord);
  EXPECT_EQ(a.name, "cudaEvent");
  EXPECT_EQ(a.start, 1000U);
  EXPECT_EQ(a.end, 1000U);
  EXPECT_EQ(a.event, 17U);
  EXPECT_EQ(a.context, 1U);
  EXPECT_EQ(a.stream, 7U);
  EXPECT_EQ(a.correlation, 5U);
}

TEST_F(CuptiDecoderTest, Overhead) {
  const GpuActivity a =
      decode_one(decoder, overhead_record(CUPTI_ACTIVITY_OVERHEAD_CUPTI_BUFFER_FLUSH, 5, 9));
  EXPECT_EQ(a.kind, ActivityKind::kOverhead);
  EXPECT_EQ(a.name, "Buffer Flush");
  EXPECT_EQ(decode_one(decoder, overhead_record(CUPTI_ACTIVITY_OVERHEAD_LAZY_FUNCTION_LOADING, 5, 9)).name,
            "Lazy Function Loading");
}

TEST_F(CuptiDecoderTest, WholeGraph) {
  CUpti_ActivityGraphTrace2 record{};
  record.kind = CUPTI_ACTIVITY_KIND_GRAPH_TRACE;
  record.correlationId = 6;
  record.start = 100;
  record.end = 300;
  record.deviceId = 0;
  record.graphId = 4;
  record.streamId = 7;
  const GpuActivity a = decode_one(decoder, record);
  EXPECT_EQ(a.kind, ActivityKind::kKernel);
  EXPECT_EQ(a.name, "CUDA graph");
  EXPECT_EQ(a.graph, 4U);
  EXPECT_EQ(a.correlation, 6U);
}

// All kinds in one buffer keep their order, and nothing is lost.
TEST_F(CuptiDecoderTest, ABufferOfAllKinds) {
  RecordBuffer buffer;
  buffer.add(external_record(1, 5));
  buffer.add(api_record(CUPTI_ACTIVITY_KIND_RUNTIME, 211, 1, 2, 3, 4, 1));
  buffer.add(kernel_record("k", 3, 4, 7, 1));
  buffer.add(memset_record(1, 5, 6, 7, 2));
  buffer.add(sync_record(CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_STREAM_SYNCHRONIZE, 7, 8, 7, 3));
  buffer.add(memcpy_record(1, 1, 3, 1, 9, 10, 7, 4));
  buffer.add(event_record(1, 10, 7, 4));
  buffer.add(overhead_record(CUPTI_ACTIVITY_OVERHEAD_UNKNOWN, 11, 12));
  buffer.add(api_record(CUPTI_ACTIVITY_KIND_DRIVER, 307, 13, 14, 3, 4, 5));
  Collected collected;
  buffer.decode(decoder, collected);
  std::vector<ActivityKind> kinds;
  for (const GpuActivity& activity : collected.all) kinds.push_back(activity.kind);
  using enum ActivityKind;
  EXPECT_EQ(kinds, (std::vector{kExternal, kRuntime, kKernel, kMemset, kSync, kMemcpy, kEventRecord,
                                kOverhead, kDriver}));
  EXPECT_TRUE(decoder.lost().empty());
}

TEST_F(CuptiDecoderTest, UnknownKindsAreCounted) {
  CUpti_Activity unknown{};
  unknown.kind = CUPTI_ACTIVITY_KIND_NVLINK;
  Collected collected;
  for (int i = 0; i < 2; ++i) decoder.decode(&unknown, collected);
  EXPECT_TRUE(collected.all.empty());
  EXPECT_EQ(decoder.lost(), (std::map<std::string, int64_t>{{"unknown_kind_40", 2}}));
}

// Without CUPTI's own iteration there is no way beyond a record whose size is not known; what lies there is counted.
TEST_F(CuptiDecoderTest, BytesBehindAnUnknownKindAreCounted) {
  CUpti_Activity unknown{};
  unknown.kind = CUPTI_ACTIVITY_KIND_NVLINK;
  RecordBuffer buffer;
  buffer.add(memset_record(1, 5, 6, 7, 2));
  buffer.add(unknown);
  buffer.add_bytes(100, std::byte{0});
  Collected collected;
  buffer.decode(decoder, collected);
  EXPECT_EQ(collected.all.size(), 1U);
  EXPECT_EQ(decoder.lost().at("unknown_kind_40"), 1);
  EXPECT_EQ(decoder.lost().at("undecoded_bytes"), 100 + static_cast<int64_t>(sizeof unknown));
}

TEST_F(CuptiDecoderTest, ARecordThatIsCutOffIsCounted) {
  RecordBuffer buffer;
  buffer.add(memset_record(1, 5, 6, 7, 2));
  buffer.add(kernel_record("k", 3, 4, 7, 1));
  Collected collected;
  buffer.decode(decoder, collected, 8);
  EXPECT_EQ(collected.all.size(), 1U);
  EXPECT_EQ(decoder.lost().at("undecoded_bytes"), static_cast<int64_t>(sizeof(CUpti_ActivityKernel11)) - 8);
}

TEST_F(CuptiDecoderTest, AnEmptyBuffer) {
  RecordBuffer buffer;
  Collected collected;
  buffer.decode(decoder, collected);
  EXPECT_TRUE(collected.all.empty());
  EXPECT_TRUE(decoder.lost().empty());
}

}  // namespace
}  // namespace omni::cuda
