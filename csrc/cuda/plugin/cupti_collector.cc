// CUPTI's calls. Nothing here may run before the driver is known to be there (csrc/runtime/cuda.cc sees to that).
#include "cuda/plugin/cupti_collector.h"

#include <cuda_runtime_api.h>

#include <exception>
#include <utility>

namespace omni::cuda {
namespace {

constexpr CUpti_ActivityKind kKinds[] = {
    CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION,  // first: calls are to find their ops
    CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL,
    CUPTI_ACTIVITY_KIND_MEMCPY,
    CUPTI_ACTIVITY_KIND_MEMCPY2,
    CUPTI_ACTIVITY_KIND_MEMSET,
    CUPTI_ACTIVITY_KIND_RUNTIME,
    CUPTI_ACTIVITY_KIND_SYNCHRONIZATION,
    CUPTI_ACTIVITY_KIND_CUDA_EVENT,  // which stream is waited for
    CUPTI_ACTIVITY_KIND_OVERHEAD,
};

// Calls of the driver that launch something; the rest only repeats what the runtime's calls say.
constexpr CUpti_CallbackId kDriverCalls[] = {
    CUPTI_DRIVER_TRACE_CBID_cuLaunchKernel,   CUPTI_DRIVER_TRACE_CBID_cuLaunchKernel_ptsz,
    CUPTI_DRIVER_TRACE_CBID_cuLaunchKernelEx, CUPTI_DRIVER_TRACE_CBID_cuLaunchKernelEx_ptsz,
    CUPTI_DRIVER_TRACE_CBID_cuGraphLaunch,    CUPTI_DRIVER_TRACE_CBID_cuGraphLaunch_ptsz,
};

// Calls of the runtime that torch makes all the time and that take no time.
constexpr CUpti_CallbackId kNoise[] = {
    CUPTI_RUNTIME_TRACE_CBID_cudaGetDevice_v3020,    CUPTI_RUNTIME_TRACE_CBID_cudaSetDevice_v3020,
    CUPTI_RUNTIME_TRACE_CBID_cudaGetLastError_v3020, CUPTI_RUNTIME_TRACE_CBID_cudaPeekAtLastError_v3020,
    CUPTI_RUNTIME_TRACE_CBID_cudaEventCreate_v3020,  CUPTI_RUNTIME_TRACE_CBID_cudaEventCreateWithFlags_v3020,
    CUPTI_RUNTIME_TRACE_CBID_cudaEventDestroy_v3020, CUPTI_RUNTIME_TRACE_CBID_cudaStreamIsCapturing_v10000,
};

// The ops that are open on this thread, innermost last: what captures a graph node belongs to it.
thread_local std::vector<uint64_t> open_ops;

std::string failed(const char* call, CUptiResult result) {
  const char* text = nullptr;
  cuptiGetResultString(result, &text);
  return std::string(call) + ": " + (text == nullptr ? "error " + std::to_string(result) : text);
}

const char* api_name(bool driver, uint32_t cbid) {
  const char* name = nullptr;
  const CUpti_CallbackDomain domain = driver ? CUPTI_CB_DOMAIN_DRIVER_API : CUPTI_CB_DOMAIN_RUNTIME_API;
  return cuptiGetCallbackName(domain, cbid, &name) == CUPTI_SUCCESS ? name : nullptr;
}

CUpti_Activity* next_record(std::byte* buffer, size_t size, CUpti_Activity* record) {
  return cuptiActivityGetNextRecord(reinterpret_cast<uint8_t*>(buffer), size, &record) == CUPTI_SUCCESS
             ? record
             : nullptr;
}

}  // namespace

CuptiCollector& CuptiCollector::get() {
  static auto* const collector = new CuptiCollector();  // CUPTI may call until the very end of the process
  return *collector;
}

std::string CuptiCollector::start(Clock clock) noexcept {
  try {
    if (running_) return "GPU activity is being collected already";
    std::string error = prepare(clock);
    if (error.empty()) error = enable();
    if (!error.empty()) disable();
    running_ = error.empty();
    return error;
  } catch (const std::exception& error) {
    return error.what();
  }
}

std::string CuptiCollector::prepare(Clock clock) {
  uint32_t version = 0;
  if (const CUptiResult result = cuptiGetVersion(&version); result != CUPTI_SUCCESS)
    return failed("cuptiGetVersion", result);
  if (version < CUPTI_API_VERSION) {
    return "CUPTI " + std::to_string(version) + " is older than " + std::to_string(CUPTI_API_VERSION) +
           ", whose records this was built for";
  }
  {
    const std::lock_guard lock(mutex_);
    for (Filled& rest : filled_) free_.push_back(std::move(rest.buffer));
    filled_.clear();
    dropped_.clear();
    captured_.clear();  // the numbers of ops begin anew
    new_nodes_.clear();
  }
  ended_ = false;
  decoder_.emplace(&api_name, devices());
  // A subscription is CUPTI's lock: one tool at a time.
  if (const CUptiResult result = cuptiSubscribe(&subscriber_, &on_callback, this); result != CUPTI_SUCCESS) {
    subscriber_ = nullptr;
    if (result == CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED)
      return "another profiler of this process has CUPTI (nsys, ncu or torch's own)";
    return failed("cuptiSubscribe", result);
  }
  if (clock != nullptr) {
    if (const CUptiResult result = cuptiActivityRegisterTimestampCallback(clock); result != CUPTI_SUCCESS)
      return failed("cuptiActivityRegisterTimestampCallback", result);
  }
  // Threads under the system's numbers, as the host's events have them.
  if (const CUptiResult result = cuptiSetThreadIdType(CUPTI_ACTIVITY_THREAD_ID_TYPE_SYSTEM);
      result != CUPTI_SUCCESS)
    return failed("cuptiSetThreadIdType", result);
  return "";
}

std::string CuptiCollector::enable() {
  if (const CUptiResult result = cuptiActivityRegisterCallbacks(&on_request, &on_complete);
      result != CUPTI_SUCCESS)
    return failed("cuptiActivityRegisterCallbacks", result);
  for (const CUpti_ActivityKind kind : kKinds) {
    if (const CUptiResult result = cuptiActivityEnable(kind); result != CUPTI_SUCCESS) {
      return failed(("cuptiActivityEnable of kind " + std::to_string(kind)).c_str(), result);
    }
  }
  // What follows only makes the trace better: older drivers may lack a function.
  cuptiActivityEnableCudaEventDeviceTimestamps(1);
  for (const CUpti_CallbackId call : kDriverCalls) cuptiActivityEnableDriverApi(call, 1);
  for (const CUpti_CallbackId call : kNoise) cuptiActivityEnableRuntimeApi(call, 0);
  for (const CUpti_CallbackIdResource id :
       {CUPTI_CBID_RESOURCE_GRAPHNODE_CREATED, CUPTI_CBID_RESOURCE_GRAPHNODE_CLONED})
    cuptiEnableCallback(1, subscriber_, CUPTI_CB_DOMAIN_RESOURCE, id);
  return "";
}

void CuptiCollector::disable() {
  for (const CUpti_CallbackId call : kDriverCalls) cuptiActivityEnableDriverApi(call, 0);
  for (const CUpti_ActivityKind kind : kKinds) cuptiActivityDisable(kind);
  if (subscriber_ != nullptr) cuptiUnsubscribe(std::exchange(subscriber_, nullptr));
}

void CuptiCollector::push(uint64_t external_id) noexcept {
  cuptiActivityPushExternalCorrelationId(CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0, external_id);
  try {
    open_ops.push_back(external_id);
  } catch (const std::exception&) {
    // Out of memory: a graph node will not find its op.
  }
}

void CuptiCollector::pop() noexcept {
  uint64_t last = 0;
  cuptiActivityPopExternalCorrelationId(CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0, &last);
  if (!open_ops.empty()) open_ops.pop_back();
}

std::string CuptiCollector::stop() noexcept {
  try {
    if (!running_) return "GPU activity is not being collected";
    running_ = false;
    std::string error;
    int devices = 0;
    int current = 0;
    if (cudaGetDevice(&current) == cudaSuccess && cudaGetDeviceCount(&devices) == cudaSuccess) {
      // What runs still has no end yet. Devices that were not used are not waited for: that would open them.
      if (const cudaError_t result = cudaDeviceSynchronize(); result != cudaSuccess)
        error = std::string("cudaDeviceSynchronize: ") + cudaGetErrorString(result);
    }
    disable();
    ended_ = true;
    return error;
  } catch (const std::exception& error) {
    return error.what();
  }
}

void CuptiCollector::drain(ActivitySink& sink) {
  if (!decoder_.has_value()) return;
  // Complete buffers, or at the end all.
  cuptiActivityFlushAll(ended_ ? CUPTI_ACTIVITY_FLAG_FLUSH_FORCED : 0);
  std::vector<std::pair<uint64_t, uint64_t>> nodes;
  {
    const std::lock_guard lock(mutex_);
    for (const uint64_t node : std::exchange(new_nodes_, {})) nodes.emplace_back(node, captured_[node]);
  }
  for (const auto& [node, op] : nodes) {
    GpuActivity activity;
    activity.kind = ActivityKind::kGraphNode;
    activity.graph_node = node;
    activity.external_id = op;
    sink.activity(activity);
  }
  while (true) {
    Filled filled;
    {
      const std::lock_guard lock(mutex_);
      if (filled_.empty()) break;
      filled = std::move(filled_.front());
      filled_.pop_front();
    }
    decoder_->decode(filled.buffer->bytes.data(), filled.size, &next_record, sink);
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(filled.buffer));
  }
  const std::lock_guard lock(mutex_);
  for (const auto& [reason, count] : decoder_->lost()) dropped_[reason] = count;
  if (!ended_) return;
  buffers_ -= free_.size();
  free_.clear();
}

std::map<std::string, int64_t> CuptiCollector::dropped() const {
  const std::lock_guard lock(mutex_);
  return dropped_;
}

std::vector<DeviceProperties> CuptiCollector::devices() const {
  std::vector<DeviceProperties> all;
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) return all;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp p{};
    DeviceProperties device;
    device.id = i;
    if (cudaGetDeviceProperties(&p, i) == cudaSuccess) {
      device.name = p.name;
      device.total_memory = static_cast<int64_t>(p.totalGlobalMem);
      device.major = p.major;
      device.minor = p.minor;
      device.threads_per_block = p.maxThreadsPerBlock;
      device.threads_per_sm = p.maxThreadsPerMultiProcessor;
      device.registers_per_block = p.regsPerBlock;
      device.registers_per_sm = p.regsPerMultiprocessor;
      device.warp_size = p.warpSize;
      device.shared_memory_per_block = static_cast<int64_t>(p.sharedMemPerBlock);
      device.shared_memory_per_block_optin = static_cast<int64_t>(p.sharedMemPerBlockOptin);
      device.shared_memory_per_sm = static_cast<int64_t>(p.sharedMemPerMultiprocessor);
      device.sms = p.multiProcessorCount;
    }
    all.push_back(std::move(device));
  }
  return all;
}

std::map<std::string, int64_t> CuptiCollector::versions() const {
  std::map<std::string, int64_t> all;
  uint32_t cupti = 0;
  if (cuptiGetVersion(&cupti) == CUPTI_SUCCESS) all["cupti_version"] = cupti;
  int version = 0;
  if (cudaRuntimeGetVersion(&version) == cudaSuccess) all["cuda_runtime_version"] = version;
  if (cudaDriverGetVersion(&version) == cudaSuccess) all["cuda_driver_version"] = version;
  return all;
}

// ---- called by CUPTI, on any thread ----------------------------------------------------------------------------------

void CUPTIAPI CuptiCollector::on_request(uint8_t** buffer, size_t* size, size_t* max_records) {
  *buffer = nullptr;
  *size = 0;
  *max_records = 0;  // as many as fit
  CuptiCollector& self = get();
  try {
    const std::lock_guard lock(self.mutex_);
    std::unique_ptr<Buffer> fresh;
    if (!self.free_.empty()) {
      fresh = std::move(self.free_.back());
      self.free_.pop_back();
    } else if (self.buffers_ < kBuffers) {
      fresh.reset(new Buffer);  // not value-initialised: CUPTI writes before anyone reads
      ++self.buffers_;
    } else {
      return;  // CUPTI counts what it cannot record
    }
    auto* const bytes = reinterpret_cast<uint8_t*>(fresh->bytes.data());
    self.filling_[bytes] = std::move(fresh);
    *buffer = bytes;
    *size = kBufferBytes;
  } catch (const std::exception&) {
    // Out of memory: the same as no buffer.
  }
}

void CUPTIAPI CuptiCollector::on_complete(CUcontext context, uint32_t stream, uint8_t* buffer,
                                          size_t /*size*/, size_t valid_size) {
  CuptiCollector& self = get();
  size_t lost = 0;
  const bool counted = cuptiActivityGetNumDroppedRecords(context, stream, &lost) == CUPTI_SUCCESS;
  try {
    const std::lock_guard lock(self.mutex_);
    if (counted && lost > 0) self.dropped_["gpu_buffer"] += static_cast<int64_t>(lost);
    const auto found = self.filling_.find(buffer);
    if (found == self.filling_.end()) return;
    std::unique_ptr<Buffer> done = std::move(found->second);
    self.filling_.erase(found);
    if (valid_size == 0) {
      self.free_.push_back(std::move(done));
    } else {
      self.filled_.push_back({std::move(done), valid_size});
    }
  } catch (const std::exception&) {
    // Out of memory: this buffer's records are lost with it.
  }
}

void CUPTIAPI CuptiCollector::on_callback(void* self, CUpti_CallbackDomain domain, CUpti_CallbackId id,
                                          const void* data) {
  if (domain != CUPTI_CB_DOMAIN_RESOURCE || data == nullptr) return;
  const auto* const resource = static_cast<const CUpti_ResourceData*>(data);
  const auto* const graph = static_cast<const CUpti_GraphData*>(resource->resourceDescriptor);
  if (graph != nullptr) static_cast<CuptiCollector*>(self)->graph_node(id, *graph);
}

// A node belongs to the op that captured it, and its copies (a graph that is instantiated is copied) to the same one.
void CuptiCollector::graph_node(CUpti_CallbackId id, const CUpti_GraphData& graph) {
  uint64_t node = 0;
  if (cuptiGetGraphNodeId(graph.node, &node) != CUPTI_SUCCESS) return;
  try {
    const std::lock_guard lock(mutex_);
    uint64_t op = open_ops.empty() ? 0 : open_ops.back();
    if (id == CUPTI_CBID_RESOURCE_GRAPHNODE_CLONED) {
      uint64_t original = 0;
      if (cuptiGetGraphNodeId(graph.originalNode, &original) != CUPTI_SUCCESS) return;
      const auto found = captured_.find(original);
      op = found == captured_.end() ? 0 : found->second;
    }
    if (op == 0) return;
    captured_[node] = op;
    new_nodes_.push_back(node);
  } catch (const std::exception&) {
    // Out of memory: the node's kernels will name the launch only.
  }
}

}  // namespace omni::cuda
