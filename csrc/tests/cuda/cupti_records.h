// Buffers as CUPTI would fill them, built by hand.
#pragma once

#include <cupti.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "cuda/plugin/cupti_decoder.h"

namespace omni::cuda {

// Records one behind the other.
class RecordBuffer {
 public:
  template <typename Record>
  void add(const Record& record) {
    const auto* const bytes = reinterpret_cast<const std::byte*>(&record);
    bytes_.insert(bytes_.end(), bytes, bytes + sizeof record);
  }

  void add_bytes(size_t count, std::byte value) { bytes_.insert(bytes_.end(), count, value); }

  // Decodes what was added, and begins anew. cut: bytes that are missing at the end.
  void decode(CuptiDecoder& decoder, ActivitySink& sink, size_t cut = 0) {
    std::vector<uint64_t> aligned((bytes_.size() + 7) / 8);
    std::memcpy(aligned.data(), bytes_.data(), bytes_.size());
    decoder.decode(reinterpret_cast<std::byte*>(aligned.data()), bytes_.size() - cut,
                   &CuptiDecoder::next_by_size, sink);
    bytes_.clear();
  }

 private:
  std::vector<std::byte> bytes_;
};

// A record of a kind that has times, with what such kinds have in common.
template <typename Record>
Record timed_record(CUpti_ActivityKind kind, uint64_t start, uint64_t end, uint32_t correlation) {
  Record record{};
  record.kind = kind;
  record.start = start;
  record.end = end;
  record.correlationId = correlation;
  return record;
}

// One of work on a device.
template <typename Record>
Record work_record(CUpti_ActivityKind kind, uint64_t start, uint64_t end, uint32_t stream,
                   uint32_t correlation) {
  auto record = timed_record<Record>(kind, start, end, correlation);
  record.contextId = 1;
  record.streamId = stream;
  return record;
}

inline CUpti_ActivityKernel11 kernel_record(const char* name, uint64_t start, uint64_t end, uint32_t stream,
                                            uint32_t correlation) {
  auto record = work_record<CUpti_ActivityKernel11>(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, start, end, stream,
                                                    correlation);
  record.name = name;
  record.gridX = 216;
  record.gridY = record.gridZ = 1;
  record.blockX = 256;
  record.blockY = record.blockZ = 1;
  record.registersPerThread = 32;
  record.staticSharedMemory = 1024;
  record.dynamicSharedMemory = 512;
  return record;
}

inline CUpti_ActivityMemcpy6 memcpy_record(uint8_t kind, uint8_t from, uint8_t to, uint64_t bytes,
                                           uint64_t start, uint64_t end, uint32_t stream,
                                           uint32_t correlation) {
  auto record =
      work_record<CUpti_ActivityMemcpy6>(CUPTI_ACTIVITY_KIND_MEMCPY, start, end, stream, correlation);
  record.copyKind = kind;
  record.srcKind = from;
  record.dstKind = to;
  record.bytes = bytes;
  record.copyCount = 1;
  return record;
}

inline CUpti_ActivityMemset4 memset_record(uint64_t bytes, uint64_t start, uint64_t end, uint32_t stream,
                                           uint32_t correlation) {
  auto record =
      work_record<CUpti_ActivityMemset4>(CUPTI_ACTIVITY_KIND_MEMSET, start, end, stream, correlation);
  record.bytes = bytes;
  record.memoryKind = CUPTI_ACTIVITY_MEMORY_KIND_DEVICE;
  return record;
}

inline CUpti_ActivityAPI api_record(CUpti_ActivityKind kind, uint32_t cbid, uint64_t start, uint64_t end,
                                    uint32_t process, uint32_t thread, uint32_t correlation) {
  auto record = timed_record<CUpti_ActivityAPI>(kind, start, end, correlation);
  record.cbid = cbid;
  record.processId = process;
  record.threadId = thread;
  return record;
}

inline CUpti_ActivityExternalCorrelation external_record(uint32_t correlation, uint64_t id) {
  CUpti_ActivityExternalCorrelation record{};
  record.kind = CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION;
  record.externalKind = CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0;
  record.externalId = id;
  record.correlationId = correlation;
  return record;
}

inline CUpti_ActivitySynchronization2 sync_record(CUpti_ActivitySynchronizationType type, uint64_t start,
                                                  uint64_t end, uint32_t stream, uint32_t correlation) {
  auto record = work_record<CUpti_ActivitySynchronization2>(CUPTI_ACTIVITY_KIND_SYNCHRONIZATION, start, end,
                                                            stream, correlation);
  record.type = type;
  record.cudaEventId = static_cast<uint32_t>(CUPTI_SYNCHRONIZATION_INVALID_VALUE);
  return record;
}

inline CUpti_ActivityCudaEvent2 event_record(uint32_t event, uint64_t time, uint32_t stream,
                                             uint32_t correlation) {
  CUpti_ActivityCudaEvent2 record{};
  record.kind = CUPTI_ACTIVITY_KIND_CUDA_EVENT;
  record.eventId = event;
  record.deviceTimestamp = time;
  record.contextId = 1;
  record.streamId = stream;
  record.correlationId = correlation;
  return record;
}

inline CUpti_ActivityOverhead3 overhead_record(CUpti_ActivityOverheadKind kind, uint64_t start,
                                               uint64_t end) {
  auto record = timed_record<CUpti_ActivityOverhead3>(CUPTI_ACTIVITY_KIND_OVERHEAD, start, end, 0);
  record.overheadKind = kind;
  record.objectKind = CUPTI_ACTIVITY_OBJECT_UNKNOWN;
  return record;
}

// The names that CUPTI has for the functions that tests use.
inline const char* api_name(bool driver, uint32_t cbid) {
  if (driver) return cbid == CUPTI_DRIVER_TRACE_CBID_cuLaunchKernel_ptsz ? "cuLaunchKernel_ptsz" : nullptr;
  switch (cbid) {
    case CUPTI_RUNTIME_TRACE_CBID_cudaLaunchKernel_v7000:
      return "cudaLaunchKernel_v7000";
    case CUPTI_RUNTIME_TRACE_CBID___cudaLaunchKernel_ptsz_v13000:
      return "__cudaLaunchKernel_ptsz_v13000";
    case CUPTI_RUNTIME_TRACE_CBID_cudaMemcpyAsync_v3020:
      return "cudaMemcpyAsync_v3020";
    case CUPTI_RUNTIME_TRACE_CBID_cudaMemsetAsync_v3020:
      return "cudaMemsetAsync_v3020";
    case CUPTI_RUNTIME_TRACE_CBID_cudaGraphLaunch_v10000:
      return "cudaGraphLaunch_v10000";
    case CUPTI_RUNTIME_TRACE_CBID_cudaStreamSynchronize_v3020:
      return "cudaStreamSynchronize_v3020";
    case CUPTI_RUNTIME_TRACE_CBID_cudaEventRecord_v3020:
      return "cudaEventRecord_v3020";
    case CUPTI_RUNTIME_TRACE_CBID_cudaStreamWaitEvent_v3020:
      return "cudaStreamWaitEvent_v3020";
    default:
      return nullptr;
  }
}

// A device with the numbers of an A100 of 40 GB.
inline DeviceProperties test_device(int64_t id) {
  DeviceProperties device;
  device.id = id;
  device.name = "Test A100";
  device.total_memory = int64_t{40} << 30;
  device.major = 8;
  device.minor = 0;
  device.threads_per_block = 1024;
  device.threads_per_sm = 2048;
  device.registers_per_block = 65536;
  device.registers_per_sm = 65536;
  device.warp_size = 32;
  device.shared_memory_per_block = 49152;
  device.shared_memory_per_block_optin = 166912;
  device.shared_memory_per_sm = 167936;
  device.sms = 108;
  return device;
}

}  // namespace omni::cuda
