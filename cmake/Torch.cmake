# Imported targets for libtorch's CPU part. find_package(Torch) insists on a CUDA toolkit with this wheel, and the
# wheel's libtorch.so pulls in every CUDA library; so the two libraries that are needed are named here.
if(NOT EXISTS "${OMNI_TORCH_DIR}/lib/libtorch_cpu.so")
  message(FATAL_ERROR "libtorch not found in ${OMNI_TORCH_DIR}: run 'make deps', or set OMNI_TORCH_DIR to a libtorch >= 2.11")
endif()

add_library(torch::c10 SHARED IMPORTED)
set_target_properties(torch::c10 PROPERTIES
  IMPORTED_LOCATION "${OMNI_TORCH_DIR}/lib/libc10.so"
  INTERFACE_INCLUDE_DIRECTORIES "${OMNI_TORCH_DIR}/include"
  INTERFACE_COMPILE_FEATURES cxx_std_20)

# ATen/Parallel.h runs its loops in the header: without -fopenmp they are silently serial. The OpenMP runtime must be
# the one that libtorch itself loads, or there would be two pools of threads.
file(GLOB OMNI_GOMP "${OMNI_TORCH_DIR}/lib/libgomp*.so*")
if(NOT OMNI_GOMP)
  set(OMNI_GOMP gomp)
endif()

add_library(torch::cpu SHARED IMPORTED)
set_target_properties(torch::cpu PROPERTIES
  IMPORTED_LOCATION "${OMNI_TORCH_DIR}/lib/libtorch_cpu.so"
  INTERFACE_INCLUDE_DIRECTORIES
    "${OMNI_TORCH_DIR}/include;${OMNI_TORCH_DIR}/include/torch/csrc/api/include;${OMNI_TORCH_DIR}/include/kineto"
  INTERFACE_COMPILE_FEATURES cxx_std_20
  INTERFACE_COMPILE_DEFINITIONS "USE_KINETO"
  INTERFACE_COMPILE_OPTIONS "$<$<COMPILE_LANGUAGE:CXX>:-fopenmp>"
  INTERFACE_LINK_OPTIONS "-Wl,-rpath-link,${OMNI_CUDA_DIR}/lib"
  INTERFACE_LINK_LIBRARIES "torch::c10;${OMNI_GOMP}")
