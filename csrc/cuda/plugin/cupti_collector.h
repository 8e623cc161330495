// Collects activity records from CUPTI into a fixed pool of buffers.
#pragma once

#include <cupti.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "cuda/activity.h"
#include "cuda/plugin/cupti_decoder.h"

namespace omni::cuda {

// One per process, since CUPTI's callbacks carry no context. CUPTI fills a buffer, hands it back when it is full or
// flushed, and drain() decodes it on the caller's thread; a decoded buffer goes back into the pool. When the pool is
// empty CUPTI drops records and counts them: a slow reader costs records, never memory and never the model's time.
class CuptiCollector final : public ActivitySource {
 public:
  static CuptiCollector& get();

  std::string start(Clock clock) noexcept override;
  void push(uint64_t external_id) noexcept override;
  void pop() noexcept override;
  std::string stop() noexcept override;
  void drain(ActivitySink& sink) override;
  std::map<std::string, int64_t> dropped() const override;
  std::vector<DeviceProperties> devices() const override;
  std::map<std::string, int64_t> versions() const override;

 private:
  static constexpr size_t kBufferBytes = size_t{1} << 20;
  static constexpr size_t kBuffers = 32;

  struct Buffer {
    alignas(8) std::array<std::byte, kBufferBytes> bytes;
  };
  struct Filled {
    std::unique_ptr<Buffer> buffer;
    size_t size = 0;
  };

  CuptiCollector() = default;
  // Each returns what went wrong, or nothing.
  std::string prepare(Clock clock);
  std::string enable();
  void disable();

  static void CUPTIAPI on_request(uint8_t** buffer, size_t* size, size_t* max_records);
  static void CUPTIAPI on_complete(CUcontext context, uint32_t stream, uint8_t* buffer, size_t size,
                                   size_t valid_size);
  static void CUPTIAPI on_callback(void* self, CUpti_CallbackDomain domain, CUpti_CallbackId id,
                                   const void* data);
  void graph_node(CUpti_CallbackId id, const CUpti_GraphData& graph);

  CUpti_SubscriberHandle subscriber_ = nullptr;
  bool running_ = false;            // the torch thread's
  std::atomic<bool> ended_{false};  // stop() has returned, and drain() brings the rest

  mutable std::mutex mutex_;  // guards what follows
  std::vector<std::unique_ptr<Buffer>> free_;
  size_t buffers_ = 0;  // existing, wherever they are
  std::unordered_map<uint8_t*, std::unique_ptr<Buffer>> filling_;
  std::deque<Filled> filled_;
  std::unordered_map<uint64_t, uint64_t> captured_;  // the op that made a graph node, by its id
  std::vector<uint64_t> new_nodes_;                  // of captured_, not drained yet
  std::map<std::string, int64_t> dropped_;

  std::optional<CuptiDecoder> decoder_;  // drain()'s
};

}  // namespace omni::cuda
