#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <vector>

#include "kernels/cuda/gpu_launch.hpp"
#include "kernels/simt/simt.hpp"
#include "modalkv/error.hpp"
#include "offload/cuda/cuda_driver.hpp"
#include "offload/cuda/driver_symbols.hpp"
#include "offload/cuda/nvtx_range.hpp"

namespace modalkv {
namespace {

// More in one call fails on some drivers.
constexpr std::size_t kRegisteredBytes = std::size_t{64} * kGiB;
constexpr std::size_t kBatchedCopies = 4096;

// Where the driver has no operations on words: a thread that writes or waits. Waiting ones take no
// more than a place among the blocks of one multiprocessor, a stream. SIMT_LAUNCH launches them, as
// gpu::preload() loads what it launches.
__global__ void write_word_kernel(std::uint64_t* word, std::uint64_t value) {
  __threadfence_system();
  *reinterpret_cast<volatile std::uint64_t*>(word) = value;
}

// No operation of the driver on words compares.
__global__ void raise_word_kernel(std::uint64_t* word, std::uint64_t value) {
  __threadfence_system();
  atomicMax_system(reinterpret_cast<unsigned long long*>(word),
                   static_cast<unsigned long long>(value));
}

__global__ void wait_word_kernel(const std::uint64_t* word, std::uint64_t value) {
  while (*reinterpret_cast<const volatile std::uint64_t*>(word) < value) __nanosleep(500);
  __threadfence_system();
}

std::string describe(const char* call, cudaError_t error) {
  return "GPU: " + std::string(call) + ": " + cudaGetErrorString(error) + " (cudart error " +
         std::to_string(static_cast<int>(error)) + ")";
}

// In set-up.
void must(const char* call, cudaError_t error) {
  if (error == cudaSuccess) return;
  (void)cudaGetLastError();
  throw Error(describe(call, error));
}

static_assert(sizeof(GpuWord) == 8 && GpuWord::is_always_lock_free, "the GPU sees a plain word");

std::uint64_t* plain(GpuWord& word) {
  return reinterpret_cast<std::uint64_t*>(&word);
}

CUdeviceptr address(const void* memory) {
  return reinterpret_cast<CUdeviceptr>(memory);
}

// Any thread may call us, also one on which the engine uses another GPU.
class Current {
 public:
  explicit Current(int gpu) : gpu_(gpu), before_(gpu) {
    (void)cudaGetDevice(&before_);
    if (before_ != gpu_) (void)cudaSetDevice(gpu_);
  }
  ~Current() {
    if (before_ != gpu_) (void)cudaSetDevice(before_);
  }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;

 private:
  int gpu_, before_;
};

class CudaDriver final : public GpuDriver {
 public:
  explicit CudaDriver(const CudaDriverOptions& options) : options_(options) {
    int gpus = 0;
    must("cudaGetDeviceCount", cudaGetDeviceCount(&gpus));
    if (options.gpu < 0 || options.gpu >= gpus)
      throw Error("GPU: number " + std::to_string(options.gpu) + " is not there, found " +
                  std::to_string(gpus));
    const Current current(options.gpu);
    must("cudaFree", cudaFree(nullptr));  // makes the primary context
    need(cudaDevAttrUnifiedAddressing, "unified addresses");
    need(cudaDevAttrCanMapHostMemory, "mapped host memory");
    need(cudaDevAttrCanUseHostPointerForRegisteredMem, "host pointers to registered memory");
    must("preload", static_cast<cudaError_t>(gpu::preload()));
    multiprocessors_ = attribute(cudaDevAttrMultiProcessorCount);
    symbols_ = DriverSymbols::find();
    has_words_ = options.uses_stream_words && symbols_.write_word != nullptr &&
                 symbols_.wait_word != nullptr;
    has_batches_ = options.uses_batched_copies && symbols_.copies_batches();
    to_.resize(kBatchedCopies);
    from_.resize(kBatchedCopies);
    bytes_.resize(kBatchedCopies);
  }

  ~CudaDriver() override {
    if (abandoned_) return;
    const Current current(options_.gpu);
    for (cudaGraphExec_t graph : graphs_) (void)cudaGraphExecDestroy(graph);
    for (const auto& [stream, scratch] : streams_)
      (void)cudaStreamDestroy(static_cast<cudaStream_t>(stream));
    for (cudaEvent_t event : events_) (void)cudaEventDestroy(event);
    for (void* memory : pinned_) (void)cudaFreeHost(memory);
    for (void* memory : device_memory_) (void)cudaFree(memory);
    (void)cudaGetLastError();
  }

  GpuStream make_stream(bool high_priority) override {
    const Current current(options_.gpu);
    int least = 0, greatest = 0;
    must("cudaDeviceGetStreamPriorityRange", cudaDeviceGetStreamPriorityRange(&least, &greatest));
    cudaStream_t stream = nullptr;
    must("cudaStreamCreate", cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking,
                                                          high_priority ? greatest : least));
    streams_[stream] = {};
    streams_[stream] = make_device_memory(options_.scratch_bytes);
    return stream;
  }

  GpuEvent make_event() override {
    const Current current(options_.gpu);
    cudaEvent_t event = nullptr;
    must("cudaEventCreate", cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    events_.push_back(event);
    return event;
  }

  std::span<std::byte> make_pinned(Bytes bytes) override {
    const Current current(options_.gpu);
    void* memory = nullptr;
    const auto size = static_cast<std::size_t>(round_up(bytes, 4096));
    must("cudaHostAlloc",
         cudaHostAlloc(&memory, size, cudaHostAllocPortable | cudaHostAllocMapped));
    pinned_.push_back(memory);
    std::memset(memory, 0, size);
    return {static_cast<std::byte*>(memory), static_cast<std::size_t>(bytes)};
  }

  std::span<std::byte> make_device_memory(Bytes bytes) override {
    const Current current(options_.gpu);
    void* memory = nullptr;
    must("cudaMalloc", cudaMalloc(&memory, static_cast<std::size_t>(round_up(bytes, 4096))));
    device_memory_.push_back(memory);
    return {static_cast<std::byte*>(memory), static_cast<std::size_t>(bytes)};
  }

  std::string register_host(std::span<std::byte> memory) override {
    const Current current(options_.gpu);
    for (std::size_t at = 0; at < memory.size(); at += kRegisteredBytes) {
      const cudaError_t error =
          cudaHostRegister(memory.data() + at, std::min(kRegisteredBytes, memory.size() - at),
                           cudaHostRegisterPortable | cudaHostRegisterMapped);
      if (error == cudaSuccess) continue;
      (void)cudaGetLastError();
      unregister_host(memory.first(at));
      return describe("cudaHostRegister", error);
    }
    return {};
  }

  void unregister_host(std::span<std::byte> memory) override {
    if (abandoned_) return;
    const Current current(options_.gpu);
    for (std::size_t at = 0; at < memory.size(); at += kRegisteredBytes)
      if (cudaHostUnregister(memory.data() + at) != cudaSuccess) (void)cudaGetLastError();
  }

  GpuReach reach(const std::byte* memory) override {
    const Current current(options_.gpu);
    cudaPointerAttributes attributes{};
    if (cudaPointerGetAttributes(&attributes, memory) != cudaSuccess) {
      (void)cudaGetLastError();
      return {.gpu = false, .host = true};
    }
    const bool of_gpu = attributes.type == cudaMemoryTypeDevice;
    return {.gpu = attributes.type == cudaMemoryTypeHost ||
                   attributes.type == cudaMemoryTypeManaged ||
                   (of_gpu && attributes.device == options_.gpu),
            .host = !of_gpu};
  }

  bool copies_within_host() const override { return false; }

  GpuResult record(GpuEvent event, GpuStream stream) override {
    const Current current(options_.gpu);
    return told("cudaEventRecord", cudaEventRecord(static_cast<cudaEvent_t>(event), of(stream)));
  }

  GpuResult wait_event(GpuStream stream, GpuEvent event) override {
    const Current current(options_.gpu);
    return told("cudaStreamWaitEvent",
                cudaStreamWaitEvent(of(stream), static_cast<cudaEvent_t>(event), 0));
  }

  GpuResult write_word(GpuStream stream, GpuWord& word, std::uint64_t value) override {
    const Current current(options_.gpu);
    if (has_words_)
      return told("cuStreamWriteValue64",
                  symbols_.write_word(of(stream), address(&word), value, 0));
    (void)cudaGetLastError();
    return told("write_word", SIMT_LAUNCH(write_word_kernel, 1, 1, 0, stream, plain(word), value));
  }

  GpuResult raise_word(GpuStream stream, GpuWord& word, std::uint64_t value) override {
    const Current current(options_.gpu);
    (void)cudaGetLastError();
    return told("raise_word", SIMT_LAUNCH(raise_word_kernel, 1, 1, 0, stream, plain(word), value));
  }

  GpuResult wait_word(GpuStream stream, GpuWord& word, std::uint64_t value) override {
    const Current current(options_.gpu);
    if (has_words_)
      return told("cuStreamWaitValue64",
                  symbols_.wait_word(of(stream), address(&word), value, CU_STREAM_WAIT_VALUE_GEQ));
    (void)cudaGetLastError();
    return told("wait_word", SIMT_LAUNCH(wait_word_kernel, 1, 1, 0, stream, plain(word), value));
  }

  GpuResult copy(GpuStream stream, std::span<const GpuCopy> copies) override {
    const Current current(options_.gpu);
    const NvtxRange range("copy");
    if (has_batches_ && !capturing_ && copies.size() > 1) {
      const GpuResult result = copy_batches(stream, copies);
      if (result != GpuResult::failed) return result;
      has_batches_ = false;  // this driver refuses them; done again, they give the same bytes
    }
    for (const GpuCopy& one : copies)
      if (const GpuResult result =
              told("cudaMemcpyAsync",
                   cudaMemcpyAsync(one.to, one.from, one.bytes, cudaMemcpyDefault, of(stream)));
          result != GpuResult::ok)
        return result;
    return GpuResult::ok;
  }

  GpuResult launch(GpuStream stream, std::span<const Op> ops, SpaceMemory memory,
                   std::uint32_t* status) override {
    const Current current(options_.gpu);
    const NvtxRange range(ops.front());
    const GpuLaunch on{stream, status, streams_.find(stream)->second, multiprocessors_};
    return told("launch", gpu::launch(ops, memory, on));
  }

  GpuResult begin_capture(GpuStream stream) override {
    const Current current(options_.gpu);
    const GpuResult result =
        told("cudaStreamBeginCapture",
             cudaStreamBeginCapture(of(stream), cudaStreamCaptureModeThreadLocal));
    capturing_ = result == GpuResult::ok;
    return result;
  }

  GpuResult end_capture(GpuStream stream, GpuGraph& graph) override {
    const Current current(options_.gpu);
    capturing_ = false;
    cudaGraph_t captured = nullptr;
    if (const GpuResult result =
            told("cudaStreamEndCapture", cudaStreamEndCapture(of(stream), &captured));
        result != GpuResult::ok)
      return result;
    cudaGraphExec_t made = nullptr;
    const GpuResult result = told("cudaGraphInstantiate", cudaGraphInstantiate(&made, captured, 0));
    (void)cudaGraphDestroy(captured);
    if (result == GpuResult::ok) graphs_.push_back(made);
    graph = made;
    return result;
  }

  GpuResult replay(GpuGraph graph, GpuStream stream) override {
    const Current current(options_.gpu);
    return told("cudaGraphLaunch",
                cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), of(stream)));
  }

  GpuResult check() override {
    const Current current(options_.gpu);
    return works() ? GpuResult::ok : GpuResult::lost;
  }

  std::string last_error() const override { return last_error_; }
  void abandon() override { abandoned_ = true; }

 private:
  static cudaStream_t of(GpuStream stream) { return static_cast<cudaStream_t>(stream); }

  int attribute(cudaDeviceAttr which) const {
    int value = 0;
    must("cudaDeviceGetAttribute", cudaDeviceGetAttribute(&value, which, options_.gpu));
    return value;
  }
  void need(cudaDeviceAttr which, const char* what) const {
    if (attribute(which) == 0) throw Error("GPU: it has no " + std::string(what));
  }

  // An error of the context comes back with every call; others are cleared.
  bool works() {
    (void)cudaGetLastError();
    if (capturing_) return true;  // a look would spoil the graph
    for (const auto& [stream, scratch] : streams_) {
      const cudaError_t error = cudaStreamQuery(of(stream));
      if (error == cudaSuccess) continue;
      (void)cudaGetLastError();  // also of what is not ready
      if (error == cudaErrorNotReady) continue;
      last_error_ = describe("cudaStreamQuery", error);
      return false;
    }
    return true;
  }
  GpuResult told(const char* call, cudaError_t error) {
    if (error == cudaSuccess) return GpuResult::ok;
    const bool well = works();
    last_error_ = describe(call, error);
    return well ? GpuResult::failed : GpuResult::lost;
  }
  GpuResult told(const char* call, GpuError error) {
    return told(call, static_cast<cudaError_t>(error));
  }
  GpuResult told(const char* call, CUresult result) {
    return told(call, static_cast<cudaError_t>(result));  // the numbers are the same
  }

  GpuResult copy_batches(GpuStream stream, std::span<const GpuCopy> copies) {
    for (; !copies.empty(); copies = copies.subspan(std::min(copies.size(), kBatchedCopies))) {
      const std::size_t count = std::min(copies.size(), kBatchedCopies);
      for (std::size_t i = 0; i < count; ++i) {
        to_[i] = address(copies[i].to);
        from_[i] = address(copies[i].from);
        bytes_[i] = copies[i].bytes;
      }
      const GpuResult result =
          told("cuMemcpyBatchAsync",
               symbols_.copy_batch(to_.data(), from_.data(), bytes_.data(), count, of(stream)));
      if (result != GpuResult::ok) return result;
    }
    return GpuResult::ok;
  }

  const CudaDriverOptions options_;
  DriverSymbols symbols_;
  bool has_words_ = false, has_batches_ = false, capturing_ = false, abandoned_ = false;
  int multiprocessors_ = 1;
  std::map<GpuStream, std::span<std::byte>> streams_;  // and their scratch
  std::vector<cudaEvent_t> events_;
  std::vector<cudaGraphExec_t> graphs_;
  std::vector<void*> pinned_, device_memory_;
  std::vector<CUdeviceptr> to_, from_;  // of a batch
  std::vector<std::size_t> bytes_;
  std::string last_error_;
};

}  // namespace

std::unique_ptr<GpuDriver> open_cuda_driver(const CudaDriverOptions& options) {
  return std::make_unique<CudaDriver>(options);
}

}  // namespace modalkv
