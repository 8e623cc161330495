# gotorch links with -ltorch, and the wheel's libtorch.so pulls in every CUDA library. A linker script of that name,
# in a folder that only the linker sees, stands for the CPU part.
file(WRITE ${CMAKE_BINARY_DIR}/link/libtorch.so "INPUT(${OMNI_TORCH_DIR}/lib/libtorch_cpu.so)\n")
