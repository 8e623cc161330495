// Writes the traces of three workers with a GPU each, for checks of what reads traces on machines without one:
// synthetic_gpu_trace FOLDER
#include <cstdio>
#include <exception>
#include <filesystem>

#include "cuda/synthetic_gpu.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: synthetic_gpu_trace FOLDER\n");
    return 2;
  }
  try {
    std::filesystem::create_directories(argv[1]);
    for (const std::string& path : omni::cuda::write_synthetic_gpu_traces(argv[1], 4))
      std::printf("%s\n", path.c_str());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "synthetic_gpu_trace: %s\n", error.what());
    return 1;
  }
  return 0;
}
