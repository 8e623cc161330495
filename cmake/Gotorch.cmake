# libcgotorch.so: the C part of the Go module github.com/wangkuiyi/gotorch, from the module's own unmodified sources
# in Go's module cache, at the version that go.mod names.
execute_process(
  COMMAND go mod download github.com/wangkuiyi/gotorch
  WORKING_DIRECTORY ${CMAKE_SOURCE_DIR}
  RESULT_VARIABLE OMNI_GO_RESULT ERROR_VARIABLE OMNI_GO_ERROR)
if(OMNI_GO_RESULT EQUAL 0)
  execute_process(
    COMMAND go list -m -f {{.Dir}} github.com/wangkuiyi/gotorch
    WORKING_DIRECTORY ${CMAKE_SOURCE_DIR}
    OUTPUT_VARIABLE OMNI_GOTORCH_DIR OUTPUT_STRIP_TRAILING_WHITESPACE
    RESULT_VARIABLE OMNI_GO_RESULT ERROR_VARIABLE OMNI_GO_ERROR)
endif()
if(NOT OMNI_GO_RESULT EQUAL 0)
  message(FATAL_ERROR "the sources of github.com/wangkuiyi/gotorch are not to be had: ${OMNI_GO_ERROR}")
endif()

file(GLOB OMNI_GOTORCH_SOURCES ${OMNI_GOTORCH_DIR}/cgotorch/*.cc)
add_library(cgotorch SHARED ${OMNI_GOTORCH_SOURCES})
target_include_directories(cgotorch PRIVATE ${OMNI_GOTORCH_DIR})
target_link_libraries(cgotorch PRIVATE torch::cpu torch::c10)
# One unit: every file includes all of torch/torch.h, half a minute each. Not ours to lint.
set_target_properties(cgotorch PROPERTIES
  UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 0
  CXX_VISIBILITY_PRESET default VISIBILITY_INLINES_HIDDEN OFF
  LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib
  BUILD_RPATH "$ORIGIN;${OMNI_TORCH_DIR}/lib;${OMNI_CUDA_DIR}/lib")
target_compile_options(cgotorch PRIVATE -w)
