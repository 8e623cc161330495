// From the bytes of a CUPTI buffer to GpuActivity. Pure: it reads memory and calls nothing of CUPTI, so that it can be
// tested where there is no driver (where every call of CUPTI crashes).
#pragma once

#include <cupti.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "cuda/activity.h"

namespace omni::cuda {

// Not thread-safe.
class CuptiDecoder {
 public:
  // CUPTI's name of a function of the runtime or the driver, null if it knows none.
  using ApiName = const char* (*)(bool driver, uint32_t cbid);
  // The record behind a given one (the first one for null), or null at the end of the buffer.
  using NextRecord = CUpti_Activity* (*)(std::byte* buffer, size_t size, CUpti_Activity* record);

  // devices: index by their id; may be empty, then nothing is said about occupancy.
  CuptiDecoder(ApiName api_name, std::vector<DeviceProperties> devices);

  // Decodes one record. What it does not know is counted.
  void decode(const CUpti_Activity* record, ActivitySink& sink);

  // Decodes a buffer: next is CUPTI's own iteration where CUPTI is loaded, or next_by_size().
  void decode(std::byte* buffer, size_t size, NextRecord next, ActivitySink& sink);

  // Goes from record to record by the size that its kind has in the headers that this was compiled with. It cannot go
  // beyond a kind that the collector does not ask for; decode() counts the rest of such a buffer as lost bytes.
  static CUpti_Activity* next_by_size(std::byte* buffer, size_t size, CUpti_Activity* record);

  // What was met and not understood, by reason: "unknown_kind_N" records, "undecoded_bytes".
  const std::map<std::string, int64_t>& lost() const { return lost_; }

 private:
  void kernel(const CUpti_ActivityKernel11& record, ActivitySink& sink);
  // Of one memory, or from device to device.
  template <typename Record>
  void copy(const Record& record, ActivitySink& sink);
  void memset(const CUpti_ActivityMemset4& record, ActivitySink& sink);
  void call(const CUpti_ActivityAPI& record, bool driver, ActivitySink& sink);
  void external(const CUpti_ActivityExternalCorrelation& record, ActivitySink& sink);
  void synchronization(const CUpti_ActivitySynchronization2& record, ActivitySink& sink);
  static void event_record(const CUpti_ActivityCudaEvent2& record, ActivitySink& sink);
  void overhead(const CUpti_ActivityOverhead3& record, ActivitySink& sink);
  void graph(const CUpti_ActivityGraphTrace2& record, ActivitySink& sink);

  // Text that lives as long as this.
  std::string_view keep(std::string text);
  std::string_view demangled(const char* name);
  std::string_view call_name(bool driver, uint32_t cbid);
  std::string_view copy_name(uint8_t kind, uint8_t from, uint8_t to);
  void estimate_occupancy(const CUpti_ActivityKernel11& record, GpuActivity& activity) const;

  ApiName api_name_;
  std::vector<DeviceProperties> devices_;
  std::unordered_set<std::string> texts_;
  std::unordered_map<std::string, std::string_view> kernels_;  // by mangled name
  std::unordered_map<uint64_t, std::string_view> calls_;       // by domain and cbid
  std::unordered_map<uint32_t, std::string_view> copies_;      // by kind, from and to
  std::map<std::string, int64_t> lost_;
};

}  // namespace omni::cuda
