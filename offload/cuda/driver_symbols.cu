#include <dlfcn.h>

#include "offload/cuda/driver_symbols.hpp"

namespace modalkv {
namespace {

// cuGetProcAddress_v2
using GetAddress = CUresult(CUDAAPI*)(const char*, void**, int, cuuint64_t, int*);

// The call as that version of CUDA has it; null where the driver is older.
template <class Function>
void look_up(GetAddress get, const char* name, int version, Function& function) {
  void* address = nullptr;
  int found = 1;  // CU_GET_PROC_ADDRESS_SUCCESS is 0
  if (get(name, &address, version, 0, &found) == CUDA_SUCCESS && found == 0)
    function = reinterpret_cast<Function>(address);
}

}  // namespace

DriverSymbols DriverSymbols::find() {
  DriverSymbols symbols;
  void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (driver == nullptr) return symbols;
  const auto get = reinterpret_cast<GetAddress>(dlsym(driver, "cuGetProcAddress_v2"));
  if (get == nullptr) return symbols;
  look_up(get, "cuStreamWriteValue64", 12000, symbols.write_word);
  look_up(get, "cuStreamWaitValue64", 12000, symbols.wait_word);
  look_up(get, "cuMemcpyBatchAsync", 12080, symbols.batch_12_);
  if (symbols.batch_12_ == nullptr) look_up(get, "cuMemcpyBatchAsync", 13000, symbols.batch_13_);
  return symbols;
}

CUresult DriverSymbols::copy_batch(CUdeviceptr* to, CUdeviceptr* from, std::size_t* bytes,
                                   std::size_t count, CUstream stream) const {
  CopyAttributes attributes;
  std::size_t first = 0;  // the copy from which on they hold
  if (batch_12_ != nullptr) {
    std::size_t failed = 0;
    return batch_12_(to, from, bytes, count, &attributes, &first, 1, &failed, stream);
  }
  return batch_13_(to, from, bytes, count, &attributes, &first, 1, stream);
}

}  // namespace modalkv
