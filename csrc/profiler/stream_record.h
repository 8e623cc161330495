// The form in which events lie in memory between the thread that runs ops and the thread that writes files. It is compact
// and quick to append: nothing is formatted, allocated or looked up while an op waits.
//
// A record is a header and a payload, padded to 8 bytes. Begin and end of an op are records of their own: those of one
// thread come in the order of time, so the reader pairs them with a stack.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

namespace omni::stream {

enum class Kind : uint8_t {
  kOpBegin = 1,  // id: name. Payload: [external id][sequence][inputs]. Ended by the kOpEnd that balances it.
  kOpEnd,
  kScopeBegin,  // id: name. Payload: serial, [sequence][inputs]. For everything that need not end where it began.
  kScopeEnd,   // id: log in which it began. Payload: serial.
  kStepBegin,  // Payload: number.
  kStepEnd,
  kMemory,         // Payload: Memory.
  kActivity,       // of a GPU. id: name. Payload: see stream_activities.h.
  kActivitiesEnd,  // so far they are complete
  kLost,           // records that a GPU's collector has lost. id: reason. Payload: how many, 64 bits.
};

enum Flags : uint8_t {
  kHasSequence = 1,
  kHasInputs = 2,
  kAnnotation = 4,   // user scope: user_annotation in the trace
  kHasExternal = 8,  // the number by which a GPU's work finds its op
};

struct Header {
  Kind kind;
  uint8_t flags;
  uint16_t words;  // size with payload, in units of 8 bytes
  uint32_t id;
  uint64_t time;  // c10::getApproximateTime
};
static_assert(sizeof(Header) == 16);

struct Sequence {
  int64_t number;
  uint64_t forward_thread;
};

struct Memory {
  uint64_t address;
  int64_t bytes;
  uint64_t total_allocated;
  uint64_t total_reserved;
  int32_t device_type;
  int32_t device_index;
};

// Inputs of an op: one tag per value, each followed by what it says, without padding.
enum class Tag : uint8_t {
  kEnd = 0,
  kTensor,      // dtype, dims, form; then sizes and, if strided, strides
  kUndefined,   // a tensor that is none, or whose sizes are not integers
  kTensorList,  // tensors up to kEnd
  kLongList,    // more tensors than anyone reads
  kInt,
  kDouble,
  kBool,
  kComplex,
  kIntList,     // a count of 8 bits, then integers
  kScalarList,  // scalars up to kEnd
  kOther,       // none, string, device, ...
};

// The form of a tensor's sizes.
enum Form : uint8_t {
  kStrided = 1,
  kWide = 2,  // 64 bits each, else 32
};

// Lists longer than this are not recorded: the limit of torch's own profiler.
constexpr size_t kMaxList = 30;

}  // namespace omni::stream
