// dlopen and what it says.
#include "runtime/cuda.h"

#include <ATen/Context.h>
#include <dlfcn.h>

#include <exception>
#include <filesystem>
#include <mutex>
#include <optional>

#include "status.h"

namespace omni {
namespace {

constexpr const char* kDriverLibrary = "libcuda.so.1";
constexpr const char* kTorchLibrary = "libtorch_cuda.so";

std::mutex mutex;
std::optional<CudaState> state;  // guarded by mutex; never changes once it is set

std::string last_dl_error() {
  const char* text = dlerror();
  return text == nullptr ? "unknown error" : text;
}

template <typename Function>
Function symbol(void* library, const char* name) {
  return reinterpret_cast<Function>(dlsym(library, name));
}

// Beside libtorch_cpu.so, where libtorch's packages have it.
std::string find_torch_library() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&at::globalContext), &info) == 0 || info.dli_fname == nullptr)
    return "";
  const std::filesystem::path path = std::filesystem::path(info.dli_fname).parent_path() / kTorchLibrary;
  std::error_code error;
  return std::filesystem::exists(path, error) ? path.string() : "";
}

// What error number means, in the driver's own words.
std::string driver_error(void* library, int error) {
  const char* text = nullptr;
  if (const auto name = symbol<int (*)(int, const char**)>(library, "cuGetErrorName")) name(error, &text);
  return text == nullptr ? "error " + std::to_string(error) : text;
}

// Fills the driver's part. Returns why it cannot be used, or nothing.
std::string open_driver(CudaState& found) {
  void* const library = dlopen(kDriverLibrary, RTLD_NOW | RTLD_GLOBAL);
  if (library == nullptr) return "no NVIDIA driver is installed (" + last_dl_error() + ")";
  const auto init = symbol<int (*)(unsigned)>(library, "cuInit");
  const auto version = symbol<int (*)(int*)>(library, "cuDriverGetVersion");
  const auto count = symbol<int (*)(int*)>(library, "cuDeviceGetCount");
  if (init == nullptr || version == nullptr || count == nullptr)
    return "libcuda.so.1 is no NVIDIA driver: it lacks cuInit, cuDriverGetVersion or cuDeviceGetCount";
  found.driver = true;
  int number = 0;
  if (version(&number) == 0) found.driver_version = number;
  if (const int error = init(0); error != 0)
    return "the NVIDIA driver cannot be used: cuInit: " + driver_error(library, error);
  if (const int error = count(&number); error != 0)
    return "the NVIDIA driver does not count its devices: cuDeviceGetCount: " + driver_error(library, error);
  found.driver_devices = number;
  return number == 0 ? "the NVIDIA driver shows none (CUDA_VISIBLE_DEVICES may hide them)" : "";
}

// Why the CUDA runtime, which libtorch_cpu.so has loaded, cannot use the driver; empty if it can. libtorch only warns of that
// and then has no devices.
std::string runtime_error() {
  const auto count = symbol<int (*)(int*)>(RTLD_DEFAULT, "cudaGetDeviceCount");
  const auto text = symbol<const char* (*)(int)>(RTLD_DEFAULT, "cudaGetErrorString");
  if (count == nullptr || text == nullptr) return "";
  int devices = 0;
  const int error = count(&devices);
  return error == 0 ? "" : text(error);
}

// Opens libtorch's part. It fills a table through which libtorch asks for CUDA.
std::string open_torch(CudaState& found) {
  if (dlopen(kTorchLibrary, RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    return "libtorch's CUDA part cannot be opened (" + last_dl_error() +
           "); \"make deps TAGS=cuda CUDA_LIBS=1\" fetches the CUDA libraries";
  }
  if (const std::string error = runtime_error(); !error.empty())
    return "the CUDA runtime cannot use the NVIDIA driver: cudaGetDeviceCount: " + error;
  try {
    if (!at::hasCUDA())
      return "libtorch's CUDA part did not register (was CUDA asked for before it was opened?)";
    found.devices = static_cast<int64_t>(at::getNumGPUs());
    return found.devices == 0 ? "libtorch can use none of the driver's devices" : "";
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  } catch (const std::exception& error) {
    return error.what();
  }
}

std::string open_plugin(CudaState& found) {
  const std::string name = cuda::kPluginLibrary;
  void* const library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    return name + " cannot be opened (" + last_dl_error() + "); \"make build TAGS=cuda\" builds it";
  const auto entry = symbol<cuda::PluginEntry>(library, cuda::kPluginEntry);
  const cuda::Plugin* const plugin = entry == nullptr ? nullptr : entry();
  if (plugin == nullptr || plugin->version != cuda::kPluginVersion)
    return name + " is of another build than this library";
  found.plugin = plugin;
  return "";
}

CudaState open_all() {
  CudaState found;
  found.library = find_torch_library();
  found.reason = open_driver(found);
  if (found.reason.empty()) found.reason = open_torch(found);
  found.plugin_reason = found.reason.empty() ? open_plugin(found) : found.reason;
  return found;
}

}  // namespace

const CudaState& open_cuda() {
  const std::lock_guard lock(mutex);
  if (!state.has_value()) state = open_all();
  return *state;
}

nlohmann::json cuda_info() {
  const std::lock_guard lock(mutex);
  nlohmann::json info = {{"opened", state.has_value()}, {"devices", 0}};
  if (!state.has_value()) return info;
  info["driver"] = state->driver;
  info["driver_version"] = state->driver_version;
  info["library"] = state->library;
  info["devices"] = state->devices;
  info["plugin"] = state->plugin != nullptr;
  if (!state->reason.empty()) info["reason"] = state->reason;
  if (!state->plugin_reason.empty()) info["plugin_reason"] = state->plugin_reason;
  return info;
}

const cuda::Plugin& require_cuda_plugin(const std::string& purpose) {
  const CudaState& found = open_cuda();
  if (found.devices == 0)
    throw Error(OMNI_FAILED_PRECONDITION, purpose + ": no CUDA device: " + found.reason);
  if (found.plugin == nullptr) throw Error(OMNI_FAILED_PRECONDITION, purpose + ": " + found.plugin_reason);
  return *found.plugin;
}

}  // namespace omni
