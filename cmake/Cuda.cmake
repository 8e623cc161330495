# libomni_cuda.so: all that needs CUDA's headers, in a library of its own that a worker opens when there is a GPU
# (csrc/runtime/cuda.cc). It links neither libcuda nor libtorch_cuda, and CUPTI and the CUDA runtime are those that
# libtorch_cpu.so has loaded already. libomni.so is the same with and without it.
option(OMNI_CUDA "make libomni_cuda.so, the GPU part of the profiler, a part of this build" OFF)

set(OMNI_CUDA_HEADERS ON)
foreach(header cupti.h cuda_runtime_api.h crt/host_defines.h nvtx3/nvToolsExt.h)
  if(NOT EXISTS "${OMNI_CUDA_DIR}/include/${header}")
    set(OMNI_CUDA_HEADERS OFF)
    if(OMNI_CUDA)
      message(FATAL_ERROR "${OMNI_CUDA_DIR}/include/${header} is missing: run 'make deps TAGS=cuda', or set OMNI_CUDA_DIR to a CUDA toolkit >= 13.2")
    endif()
  endif()
endforeach()
if(NOT OMNI_CUDA_HEADERS)
  return()
endif()

# Decoding CUPTI's records takes its headers and no call: it can be tested anywhere.
add_library(omni_cupti_decoder OBJECT csrc/cuda/plugin/cupti_decoder.cc)
target_include_directories(omni_cupti_decoder PUBLIC csrc)
target_include_directories(omni_cupti_decoder SYSTEM PUBLIC ${OMNI_CUDA_DIR}/include)
target_compile_options(omni_cupti_decoder PRIVATE -Wall -Wextra)

file(GLOB OMNI_CUDA_SOURCES CONFIGURE_DEPENDS csrc/cuda/plugin/*.cc)
list(FILTER OMNI_CUDA_SOURCES EXCLUDE REGEX "/cupti_decoder\\.cc$")
add_library(omni_cuda SHARED ${OMNI_CUDA_SOURCES} $<TARGET_OBJECTS:omni_cupti_decoder>)
target_include_directories(omni_cuda PRIVATE csrc)
target_include_directories(omni_cuda SYSTEM PRIVATE ${OMNI_CUDA_DIR}/include)
target_compile_options(omni_cuda PRIVATE -Wall -Wextra)
target_link_libraries(omni_cuda PRIVATE
  "${OMNI_CUDA_DIR}/lib/libcupti.so.13" "${OMNI_CUDA_DIR}/lib/libcudart.so.13")
target_link_options(omni_cuda PRIVATE -Wl,--no-undefined -Wl,--version-script=${CMAKE_SOURCE_DIR}/csrc/omni.map)
set_target_properties(omni_cuda PROPERTIES
  LINK_DEPENDS ${CMAKE_SOURCE_DIR}/csrc/omni.map
  BUILD_RPATH "$ORIGIN;${OMNI_CUDA_DIR}/lib")
if(OMNI_CUDA)
  set_target_properties(omni_cuda PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)
else()
  # Where libomni.so does not look: a plain build stays plain, and tests can still have it.
  set_target_properties(omni_cuda PROPERTIES
    EXCLUDE_FROM_ALL ON LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/cuda/lib)
endif()
