// What a GPU did, and who tells: the interface between libomni.so and libomni_cuda.so, the second library, which alone
// knows CUPTI. No CUDA header is needed to include this.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace omni::cuda {

enum class ActivityKind : uint32_t {
  kKernel,
  kMemcpy,
  kMemset,
  kRuntime,      // a call of the CUDA runtime, on a host thread
  kDriver,       // a call of the driver
  kSync,         // a wait: of the host for a stream, an event or a context, or of a stream for an event
  kEventRecord,  // a stream has reached an event; end is start
  kOverhead,     // what profiling itself costs
  kExternal,     // no work: the call with this correlation was made while the op external_id ran
  kGraphNode,    // no work: the node graph_node was captured while the op external_id ran
};

// Whether an activity is something that happened, and not only what is known of others.
constexpr bool is_event(ActivityKind kind) { return kind < ActivityKind::kExternal; }

constexpr uint32_t kNoStream = UINT32_MAX;
constexpr uint32_t kNoEvent = UINT32_MAX;

// What is known of one thing that happened, without its name: plain bytes, which a log can hold. Which fields mean something
// depends on the kind; those of few kinds come last, and what nobody has set is 0, so that a log may leave out the end.
struct ActivityFacts {
  uint64_t start = 0;  // in the clock that the source was started with
  uint64_t end = 0;
  uint64_t external_id = 0;
  ActivityKind kind = ActivityKind::kKernel;
  uint32_t correlation = 0;  // the same for a call and for the work that it launched

  // Calls.
  uint32_t process = 0;
  uint32_t thread = 0;  // of the operating system
  uint32_t cbid = 0;    // CUPTI's number of the function

  // Work on a device, waits and events.
  uint32_t device = 0;
  uint32_t context = 0;
  uint32_t stream = 0;
  uint32_t event = 0;  // of kEventRecord and of waits for one; kNoEvent: another wait
  uint32_t channel = 0;
  int32_t channel_type = 0;
  uint32_t graph = 0;
  uint64_t graph_node = 0;  // 0: not launched by a graph
  uint64_t bytes = 0;       // of copies and sets

  // Kernels.
  std::array<int32_t, 3> grid{};
  std::array<int32_t, 3> block{};
  int32_t shared_memory = 0;  // static and dynamic, bytes per block
  uint32_t registers = 0;     // per thread
  int32_t priority = 0;
  float blocks_per_sm = 0;  // these three are estimates from the device's properties; negative: not known
  float warps_per_sm = 0;
  float occupancy = 0;  // percent
  uint64_t queued = 0;
};
static_assert(sizeof(ActivityFacts) == 144, "without gaps, whose bytes would mean nothing");

struct GpuActivity : ActivityFacts {
  std::string_view name;  // as it is shown; the source's own, until the source is started again
};

// Takes activities one by one, in the order in which CUPTI delivers them, which is not that of time.
class ActivitySink {
 public:
  virtual ~ActivitySink() = default;
  virtual void activity(const GpuActivity& activity) = 0;
};

// A device as a trace's header describes it.
struct DeviceProperties {
  int64_t id = 0;
  std::string name;
  int64_t total_memory = 0;
  int64_t major = 0;
  int64_t minor = 0;
  int64_t threads_per_block = 0;
  int64_t threads_per_sm = 0;
  int64_t registers_per_block = 0;
  int64_t registers_per_sm = 0;
  int64_t warp_size = 0;
  int64_t shared_memory_per_block = 0;
  int64_t shared_memory_per_block_optin = 0;
  int64_t shared_memory_per_sm = 0;
  int64_t sms = 0;
};

// The collector. One per process. No function throws: an error is a text, empty if there is none.
class ActivitySource {
 public:
  // Counts of the processor or nanoseconds: whatever the caller can convert later.
  using Clock = uint64_t (*)();

  virtual ~ActivitySource() = default;

  // [torch thread] Begins to collect. Fails if another tool has CUPTI, and says so.
  virtual std::string start(Clock clock) noexcept = 0;

  // [the op's thread] Work launched until the matching pop belongs to the op with this id. They nest.
  virtual void push(uint64_t external_id) noexcept = 0;
  virtual void pop() noexcept = 0;

  // [torch thread] Waits until the devices have done what was launched, and ends collection. What was collected waits
  // for drain().
  virtual std::string stop() noexcept = 0;

  // [one thread at a time, besides push() and pop()] Hands on what is complete so far; after stop(), all there is. An
  // exception of the sink passes through, and what was in that buffer is lost.
  virtual void drain(ActivitySink& sink) = 0;

  // Records that are missing since start(), by reason; final after the drain() that follows stop().
  virtual std::map<std::string, int64_t> dropped() const = 0;

  virtual std::vector<DeviceProperties> devices() const = 0;

  // Of what it collects with, under the names of a trace's header: cupti_version, cuda_runtime_version,
  // cuda_driver_version. What cannot be found out is not in it. Not where there is no driver.
  virtual std::map<std::string, int64_t> versions() const = 0;
};

// What a trace's header says of the GPUs that are recorded. Empty: none.
struct Environment {
  std::vector<DeviceProperties> devices;
  std::map<std::string, int64_t> versions;
};

inline Environment environment_of(const ActivitySource& source) {
  return {source.devices(), source.versions()};
}

// Marks for tools that look on from outside, such as Nsight Systems. They cost next to nothing when none does.
class Ranges {
 public:
  virtual ~Ranges() = default;
  // Opens and closes a range on the calling thread. They nest.
  virtual void push(const char* name) noexcept = 0;
  virtual void pop() noexcept = 0;
  // cudaProfilerStart and cudaProfilerStop: where a tool begins and ends to record, if it was told to wait for that.
  virtual std::string start_tool() noexcept = 0;
  virtual std::string stop_tool() noexcept = 0;
};

// What libomni_cuda.so hands out. The objects live as long as the process.
struct Plugin {
  uint32_t version = 0;  // kPluginVersion of the library's build
  ActivitySource* activities = nullptr;
  Ranges* ranges = nullptr;
};

// Raised with every change of the structs and classes above.
constexpr uint32_t kPluginVersion = 3;
constexpr const char* kPluginLibrary = "libomni_cuda.so";
constexpr const char* kPluginEntry = "omni_cuda_plugin";
using PluginEntry = const Plugin* (*)();

}  // namespace omni::cuda
