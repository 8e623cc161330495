// Record layouts, and the names under which Kineto shows what they say.
#include "cuda/plugin/cupti_decoder.h"

#include <cuda_occupancy.h>
#include <cxxabi.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <utility>

namespace omni::cuda {
namespace {

// The size of a record, 0 for kinds that the collector does not ask for.
size_t record_size(CUpti_ActivityKind kind) {
  switch (kind) {
    case CUPTI_ACTIVITY_KIND_KERNEL:
    case CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL:
      return sizeof(CUpti_ActivityKernel11);
    case CUPTI_ACTIVITY_KIND_MEMCPY:
      return sizeof(CUpti_ActivityMemcpy6);
    case CUPTI_ACTIVITY_KIND_MEMCPY2:
      return sizeof(CUpti_ActivityMemcpyPtoP4);
    case CUPTI_ACTIVITY_KIND_MEMSET:
      return sizeof(CUpti_ActivityMemset4);
    case CUPTI_ACTIVITY_KIND_RUNTIME:
    case CUPTI_ACTIVITY_KIND_DRIVER:
      return sizeof(CUpti_ActivityAPI);
    case CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION:
      return sizeof(CUpti_ActivityExternalCorrelation);
    case CUPTI_ACTIVITY_KIND_SYNCHRONIZATION:
      return sizeof(CUpti_ActivitySynchronization2);
    case CUPTI_ACTIVITY_KIND_CUDA_EVENT:
      return sizeof(CUpti_ActivityCudaEvent2);
    case CUPTI_ACTIVITY_KIND_OVERHEAD:
      return sizeof(CUpti_ActivityOverhead3);
    case CUPTI_ACTIVITY_KIND_GRAPH_TRACE:
      return sizeof(CUpti_ActivityGraphTrace2);
    default:
      return 0;
  }
}

const char* copy_kind_name(uint8_t kind) {
  constexpr const char* kNames[] = {"Unknown", "HtoD", "DtoH", "HtoA", "AtoH", "AtoA",
                                    "AtoD",    "DtoA", "DtoD", "HtoH", "PtoP"};
  return kind < std::size(kNames) ? kNames[kind] : "Unknown";
}

const char* memory_name(uint16_t kind) {
  constexpr const char* kNames[] = {"Unknown", "Pageable", "Pinned",        "Device",
                                    "Array",   "Managed",  "Device Static", "Managed Static"};
  return kind < std::size(kNames) ? kNames[kind] : "Unknown";
}

const char* wait_name(CUpti_ActivitySynchronizationType type) {
  switch (type) {
    case CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_EVENT_SYNCHRONIZE:
      return "Event Sync";
    case CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_STREAM_WAIT_EVENT:
      return "Stream Wait Event";
    case CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_STREAM_SYNCHRONIZE:
      return "Stream Sync";
    case CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_CONTEXT_SYNCHRONIZE:
      return "Context Sync";
    default:
      return "Unknown Sync";
  }
}

const char* overhead_name(CUpti_ActivityOverheadKind kind) {
  switch (kind) {
    case CUPTI_ACTIVITY_OVERHEAD_DRIVER_COMPILER:
      return "Driver Compiler";
    case CUPTI_ACTIVITY_OVERHEAD_CUPTI_BUFFER_FLUSH:
      return "Buffer Flush";
    case CUPTI_ACTIVITY_OVERHEAD_CUPTI_INSTRUMENTATION:
      return "Instrumentation";
    case CUPTI_ACTIVITY_OVERHEAD_CUPTI_RESOURCE:
      return "Resource";
    case CUPTI_ACTIVITY_OVERHEAD_RUNTIME_TRIGGERED_MODULE_LOADING:
      return "Runtime Triggered Module Loading";
    case CUPTI_ACTIVITY_OVERHEAD_LAZY_FUNCTION_LOADING:
      return "Lazy Function Loading";
    case CUPTI_ACTIVITY_OVERHEAD_COMMAND_BUFFER_FULL:
      return "Command Buffer Full";
    case CUPTI_ACTIVITY_OVERHEAD_ACTIVITY_BUFFER_REQUEST:
      return "Activity Buffer Request";
    case CUPTI_ACTIVITY_OVERHEAD_UVM_ACTIVITY_INIT:
      return "UVM Activity Init";
    default:
      return "Unknown Overhead";
  }
}

// Removes what tells versions of a function apart: __cudaLaunchKernel_ptsz_v13000 is cudaLaunchKernel to readers.
std::string plain_call_name(std::string name) {
  if (name.starts_with("__cuda")) name.erase(0, 2);
  if (const size_t v = name.rfind("_v"); v != std::string::npos && v + 2 < name.size() &&
                                         std::all_of(name.begin() + static_cast<ptrdiff_t>(v) + 2, name.end(),
                                                     [](char c) { return c >= '0' && c <= '9'; })) {
    name.erase(v);
  }
  for (const std::string_view suffix : {"_ptsz", "_ptds"}) {
    if (name.ends_with(suffix)) name.erase(name.size() - suffix.size());
  }
  return name;
}

// The fields that nearly everything has.
template <typename Record>
GpuActivity timed(ActivityKind kind, std::string_view name, const Record& record) {
  GpuActivity activity;
  activity.kind = kind;
  activity.name = name;
  activity.start = record.start;
  activity.end = record.end;
  activity.correlation = record.correlationId;
  return activity;
}

// Those that all work on a device has.
template <typename Record>
GpuActivity device_work(ActivityKind kind, std::string_view name, const Record& record) {
  GpuActivity activity = timed(kind, name, record);
  activity.device = record.deviceId;
  activity.context = record.contextId;
  activity.stream = record.streamId;
  activity.graph_node = record.graphNodeId;
  activity.graph = record.graphId;
  activity.channel = record.channelID;
  activity.channel_type = record.channelType;
  return activity;
}

template <typename Record>
const Record& as(const CUpti_Activity* record) {
  return *reinterpret_cast<const Record*>(record);
}

}  // namespace

CuptiDecoder::CuptiDecoder(ApiName api_name, std::vector<DeviceProperties> devices)
    : api_name_(api_name), devices_(std::move(devices)) {}

void CuptiDecoder::decode(const CUpti_Activity* record, ActivitySink& sink) {
  switch (record->kind) {
    case CUPTI_ACTIVITY_KIND_KERNEL:
    case CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL:
      return kernel(as<CUpti_ActivityKernel11>(record), sink);
    case CUPTI_ACTIVITY_KIND_MEMCPY:
      return copy(as<CUpti_ActivityMemcpy6>(record), sink);
    case CUPTI_ACTIVITY_KIND_MEMCPY2:
      return copy(as<CUpti_ActivityMemcpyPtoP4>(record), sink);
    case CUPTI_ACTIVITY_KIND_MEMSET:
      return memset(as<CUpti_ActivityMemset4>(record), sink);
    case CUPTI_ACTIVITY_KIND_RUNTIME:
      return call(as<CUpti_ActivityAPI>(record), /*driver=*/false, sink);
    case CUPTI_ACTIVITY_KIND_DRIVER:
      return call(as<CUpti_ActivityAPI>(record), /*driver=*/true, sink);
    case CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION:
      return external(as<CUpti_ActivityExternalCorrelation>(record), sink);
    case CUPTI_ACTIVITY_KIND_SYNCHRONIZATION:
      return synchronization(as<CUpti_ActivitySynchronization2>(record), sink);
    case CUPTI_ACTIVITY_KIND_CUDA_EVENT:
      return event_record(as<CUpti_ActivityCudaEvent2>(record), sink);
    case CUPTI_ACTIVITY_KIND_OVERHEAD:
      return overhead(as<CUpti_ActivityOverhead3>(record), sink);
    case CUPTI_ACTIVITY_KIND_GRAPH_TRACE:
      return graph(as<CUpti_ActivityGraphTrace2>(record), sink);
    default:
      ++lost_["unknown_kind_" + std::to_string(static_cast<int>(record->kind))];
  }
}

void CuptiDecoder::decode(std::byte* buffer, size_t size, NextRecord next, ActivitySink& sink) {
  CUpti_Activity* record = nullptr;
  size_t reached = 0;
  while ((record = next(buffer, size, record)) != nullptr) {
    decode(record, sink);
    reached = static_cast<size_t>(reinterpret_cast<std::byte*>(record) - buffer) + record_size(record->kind);
  }
  if (next == &next_by_size && reached < size)
    lost_["undecoded_bytes"] += static_cast<int64_t>(size - reached);
}

CUpti_Activity* CuptiDecoder::next_by_size(std::byte* buffer, size_t size, CUpti_Activity* record) {
  size_t at = 0;
  if (record != nullptr) {
    const size_t length = record_size(record->kind);
    if (length == 0) return nullptr;
    at = static_cast<size_t>(reinterpret_cast<std::byte*>(record) - buffer) + length;
  }
  if (at + sizeof(CUpti_ActivityKind) > size) return nullptr;
  auto* const found = reinterpret_cast<CUpti_Activity*>(buffer + at);
  return at + record_size(found->kind) > size ? nullptr : found;
}

void CuptiDecoder::kernel(const CUpti_ActivityKernel11& record, ActivitySink& sink) {
  GpuActivity activity = device_work(ActivityKind::kKernel, demangled(record.name), record);
  activity.grid = {record.gridX, record.gridY, record.gridZ};
  activity.block = {record.blockX, record.blockY, record.blockZ};
  activity.shared_memory = record.staticSharedMemory + record.dynamicSharedMemory;
  activity.registers = record.registersPerThread;
  activity.priority = record.priority;
  activity.queued = record.queued;
  estimate_occupancy(record, activity);
  sink.activity(activity);
}

template <typename Record>
void CuptiDecoder::copy(const Record& record, ActivitySink& sink) {
  GpuActivity activity =
      device_work(ActivityKind::kMemcpy, copy_name(record.copyKind, record.srcKind, record.dstKind), record);
  activity.bytes = record.bytes;
  sink.activity(activity);
}

void CuptiDecoder::memset(const CUpti_ActivityMemset4& record, ActivitySink& sink) {
  GpuActivity activity = device_work(
      ActivityKind::kMemset, keep(std::string("Memset (") + memory_name(record.memoryKind) + ")"), record);
  activity.bytes = record.bytes;
  sink.activity(activity);
}

void CuptiDecoder::call(const CUpti_ActivityAPI& record, bool driver, ActivitySink& sink) {
  GpuActivity activity =
      timed(driver ? ActivityKind::kDriver : ActivityKind::kRuntime, call_name(driver, record.cbid), record);
  activity.process = record.processId;
  activity.thread = record.threadId;
  activity.cbid = record.cbid;
  sink.activity(activity);
}

void CuptiDecoder::external(const CUpti_ActivityExternalCorrelation& record, ActivitySink& sink) {
  if (record.externalKind != CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0) return;  // another tool's
  GpuActivity activity;
  activity.kind = ActivityKind::kExternal;
  activity.correlation = record.correlationId;
  activity.external_id = record.externalId;
  sink.activity(activity);
}

void CuptiDecoder::synchronization(const CUpti_ActivitySynchronization2& record, ActivitySink& sink) {
  GpuActivity activity = timed(ActivityKind::kSync, wait_name(record.type), record);
  activity.context = record.contextId;
  activity.stream = record.streamId == CUPTI_SYNCHRONIZATION_INVALID_VALUE ? kNoStream : record.streamId;
  const bool for_event = record.type == CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_EVENT_SYNCHRONIZE ||
                         record.type == CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_STREAM_WAIT_EVENT;
  activity.event = for_event ? record.cudaEventId : kNoEvent;
  sink.activity(activity);
}

void CuptiDecoder::event_record(const CUpti_ActivityCudaEvent2& record, ActivitySink& sink) {
  GpuActivity activity;
  activity.kind = ActivityKind::kEventRecord;
  activity.name = "cudaEvent";
  activity.start = activity.end = record.deviceTimestamp;
  activity.correlation = record.correlationId;
  activity.device = record.deviceId;
  activity.context = record.contextId;
  activity.stream = record.streamId;
  activity.event = record.eventId;
  sink.activity(activity);
}

void CuptiDecoder::overhead(const CUpti_ActivityOverhead3& record, ActivitySink& sink) {
  GpuActivity activity = timed(ActivityKind::kOverhead, overhead_name(record.overheadKind), record);
  if (record.objectKind == CUPTI_ACTIVITY_OBJECT_THREAD ||
      record.objectKind == CUPTI_ACTIVITY_OBJECT_PROCESS) {
    activity.process = record.objectId.pt.processId;
    activity.thread = record.objectId.pt.threadId;
  }
  sink.activity(activity);
}

// A whole graph as one piece of work: what CUPTI reports where it was told not to look at the nodes.
void CuptiDecoder::graph(const CUpti_ActivityGraphTrace2& record, ActivitySink& sink) {
  GpuActivity activity = timed(ActivityKind::kKernel, "CUDA graph", record);
  activity.device = record.deviceId;
  activity.context = record.contextId;
  activity.stream = record.streamId;
  activity.graph = record.graphId;
  activity.blocks_per_sm = activity.warps_per_sm = activity.occupancy = -1;
  sink.activity(activity);
}

std::string_view CuptiDecoder::keep(std::string text) { return *texts_.insert(std::move(text)).first; }

std::string_view CuptiDecoder::demangled(const char* name) {
  if (name == nullptr) return "unknown kernel";
  const auto [entry, fresh] = kernels_.try_emplace(name);
  if (fresh) {
    int status = 0;
    char* const text = abi::__cxa_demangle(name, nullptr, nullptr, &status);
    entry->second = keep(status == 0 && text != nullptr ? text : name);
    std::free(text);
  }
  return entry->second;
}

std::string_view CuptiDecoder::call_name(bool driver, uint32_t cbid) {
  const auto [entry, fresh] = calls_.try_emplace(uint64_t{cbid} << 1 | static_cast<uint64_t>(driver));
  if (fresh) {
    const char* const name = api_name_ == nullptr ? nullptr : api_name_(driver, cbid);
    entry->second =
        keep(name != nullptr ? plain_call_name(name)
                             : (driver ? "driver call " : "runtime call ") + std::to_string(cbid));
  }
  return entry->second;
}

std::string_view CuptiDecoder::copy_name(uint8_t kind, uint8_t from, uint8_t to) {
  const auto [entry, fresh] =
      copies_.try_emplace(static_cast<uint32_t>(kind) << 16 | static_cast<uint32_t>(from) << 8 | to);
  if (fresh) {
    entry->second = keep(std::string("Memcpy ") + copy_kind_name(kind) + " (" + memory_name(from) + " -> " +
                         memory_name(to) + ")");
  }
  return entry->second;
}

// How full the device is, as far as launch size and resources say: how many blocks and warps there are for each
// multiprocessor, and what part of its threads the kernel can keep busy.
void CuptiDecoder::estimate_occupancy(const CUpti_ActivityKernel11& record, GpuActivity& activity) const {
  activity.blocks_per_sm = activity.warps_per_sm = activity.occupancy = -1;
  if (record.deviceId >= devices_.size()) return;
  const DeviceProperties& device = devices_[record.deviceId];
  if (device.sms <= 0 || device.warp_size <= 0 || device.threads_per_sm <= 0) return;
  const int64_t threads = int64_t{record.blockX} * record.blockY * record.blockZ;
  const double blocks = static_cast<double>(record.gridX) * record.gridY * record.gridZ;
  activity.blocks_per_sm = static_cast<float>(blocks / static_cast<double>(device.sms));
  activity.warps_per_sm = static_cast<float>(activity.blocks_per_sm * static_cast<double>(threads) /
                                             static_cast<double>(device.warp_size));

  cudaOccDeviceProp properties;
  properties.computeMajor = static_cast<int>(device.major);
  properties.computeMinor = static_cast<int>(device.minor);
  properties.maxThreadsPerBlock = static_cast<int>(device.threads_per_block);
  properties.maxThreadsPerMultiprocessor = static_cast<int>(device.threads_per_sm);
  properties.regsPerBlock = static_cast<int>(device.registers_per_block);
  properties.regsPerMultiprocessor = static_cast<int>(device.registers_per_sm);
  properties.warpSize = static_cast<int>(device.warp_size);
  properties.sharedMemPerBlock = static_cast<size_t>(device.shared_memory_per_block);
  properties.sharedMemPerBlockOptin = static_cast<size_t>(device.shared_memory_per_block_optin);
  properties.sharedMemPerMultiprocessor = static_cast<size_t>(device.shared_memory_per_sm);
  properties.numSms = static_cast<int>(device.sms);
  cudaOccFuncAttributes function;
  function.maxThreadsPerBlock = INT_MAX;
  function.numRegs = record.registersPerThread;
  function.sharedSizeBytes = static_cast<size_t>(record.staticSharedMemory);
  function.partitionedGCConfig = PARTITIONED_GC_OFF;
  function.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
  function.maxDynamicSharedSizeBytes = static_cast<size_t>(record.dynamicSharedMemory);
  function.numBlockBarriers = 1;
  const cudaOccDeviceState state{};
  cudaOccResult result{};
  if (cudaOccMaxActiveBlocksPerMultiprocessor(
          &result, &properties, &function, &state, static_cast<int>(threads),
          static_cast<size_t>(record.dynamicSharedMemory)) != CUDA_OCC_SUCCESS)
    return;
  const double resident = std::min<double>(activity.blocks_per_sm, result.activeBlocksPerMultiprocessor);
  activity.occupancy = static_cast<float>(std::min(
      100.0, 100.0 * resident * static_cast<double>(threads) / static_cast<double>(device.threads_per_sm)));
}

}  // namespace omni::cuda
