// The safetensors format: u64 length (little endian), a JSON header of that length, then the tensors' bytes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace omni {

// One tensor as the header of its file describes it.
struct TensorInfo {
  std::string name;
  at::ScalarType dtype;
  std::vector<int64_t> shape;
  std::string file;  // name inside the checkpoint's folder
  const uint8_t*
      data;  // mapped, valid while the Checkpoint lives; its alignment may be less than the element's
  int64_t bytes;
};

// Reads the header of a whole file that lies at data. Nothing but the header is looked at, and every word of it is
// checked against size: what returns can be read without a further check, whatever wrote the file. Throws
// INVALID_ARGUMENT "<file>: tensor "<name>": ..." for a header that is cut, not JSON or not of the format, for unknown
// dtypes, for shapes that overflow or disagree with the offsets, and for data that is cut, overlaps or has holes.
std::vector<TensorInfo> read_safetensors_header(const uint8_t* data, size_t size, const std::string& file);

// "F32" for at::kFloat; "?" for what the format cannot hold. For error texts.
const char* safetensors_dtype_name(at::ScalarType dtype);

// "[2, 3]". For error texts.
std::string shape_text(const std::vector<int64_t>& shape);

}  // namespace omni
