/* Stands in for libcuda.so.1. It answers the questions that come before anything else is opened, and nothing more. */
#include <stdlib.h>

enum { kSuccess = 0, kNoDevice = 100 };

static int devices(void) {
  const char* text = getenv("STUB_DEVICES");
  return text == NULL ? 0 : atoi(text);
}

int cuInit(unsigned flags) {
  (void)flags;
  return devices() < 0 ? kNoDevice : kSuccess;
}

int cuDriverGetVersion(int* version) {
  *version = 13020;
  return kSuccess;
}

int cuDeviceGetCount(int* count) {
  *count = devices();
  return kSuccess;
}

int cuGetErrorName(int error, const char** text) {
  *text = error == kNoDevice ? "CUDA_ERROR_NO_DEVICE" : "CUDA_ERROR_UNKNOWN";
  return kSuccess;
}
