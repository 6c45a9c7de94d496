// Calls of the driver's own interface, found at run time: a program that links them does not start
// where no driver is, and drivers differ in which they have.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace modalkv {

/// Absent calls are null. Plain pointers: copy it.
class DriverSymbols {
 public:
  using StreamWord = CUresult(CUDAAPI*)(CUstream, CUdeviceptr, cuuint64_t, unsigned int);

  /// Of the driver that is installed; all null where there is none. The driver stays loaded.
  static DriverSymbols find();

  StreamWord write_word = nullptr;  ///< cuStreamWriteValue64
  StreamWord wait_word = nullptr;   ///< cuStreamWaitValue64

  bool copies_batches() const { return batch_12_ != nullptr || batch_13_ != nullptr; }
  /// cuMemcpyBatchAsync, sources read in the stream's order.
  CUresult copy_batch(CUdeviceptr* to, CUdeviceptr* from, std::size_t* bytes, std::size_t count,
                      CUstream stream) const;

 private:
  // CUmemcpyAttributes, which toolkits before 12.8 do not have.
  struct CopyAttributes {
    int source_access_order = 1;  // CU_MEMCPY_SRC_ACCESS_ORDER_STREAM
    int source_hint[2] = {0, 0}, destination_hint[2] = {0, 0};
    unsigned int flags = 0;
  };
  // 12.8 tells which copy was wrong, 13 does not.
  using Batch12 = CUresult(CUDAAPI*)(CUdeviceptr*, CUdeviceptr*, std::size_t*, std::size_t,
                                     CopyAttributes*, std::size_t*, std::size_t, std::size_t*,
                                     CUstream);
  using Batch13 = CUresult(CUDAAPI*)(CUdeviceptr*, CUdeviceptr*, std::size_t*, std::size_t,
                                     CopyAttributes*, std::size_t*, std::size_t, CUstream);
  Batch12 batch_12_ = nullptr;
  Batch13 batch_13_ = nullptr;
};

}  // namespace modalkv
