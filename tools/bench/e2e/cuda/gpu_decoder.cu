#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "modalkv/error.hpp"
#include "tools/bench/e2e/cuda/cublas_symbols.hpp"
#include "tools/bench/e2e/cuda/gpu_decoder.hpp"

namespace modalkv {
namespace {

constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;  // what cuBLAS asks for on Hopper
constexpr unsigned kThreads = 256;

void require(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  (void)cudaGetLastError();
  throw Error(std::string("bench e2e: ") + what + ": " + cudaGetErrorString(error));
}

void require(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error(std::string("bench e2e: ") + what + ": " + "cuBLASLt status " +
              std::to_string(static_cast<int>(status)));
}

unsigned blocks_for(std::size_t elements) {
  return static_cast<unsigned>((elements + kThreads - 1) / kThreads);
}

// SplitMix64's finalizer: numbers between -1 and 1 that no two elements share.
__device__ float noise(std::uint64_t at) {
  at = (at ^ (at >> 30)) * 0xbf58476d1ce4e5b9ULL;
  at = (at ^ (at >> 27)) * 0x94d049bb133111ebULL;
  return static_cast<float>(static_cast<std::int32_t>((at ^ (at >> 31)) >> 32)) / 2147483648.0f;
}

__global__ void fill_noise(__half* to, std::size_t count, std::uint64_t seed, float scale) {
  const std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < count) to[i] = __float2half(scale * noise(seed + i));
}

// A block a row [columns].
__global__ void normalize(const __half* rows, __half* results, int columns) {
  __shared__ float sums[kThreads / 32];
  const __half* row = rows + std::size_t{blockIdx.x} * columns;
  __half* result = results + std::size_t{blockIdx.x} * columns;
  float square = 0;
  for (int j = threadIdx.x; j < columns; j += kThreads) {
    const float element = __half2float(row[j]);
    square += element * element;
  }
  for (int distance = 16; distance > 0; distance /= 2)
    square += __shfl_xor_sync(0xffffffffu, square, distance);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = square;
  __syncthreads();
  square = 0;
  for (const float sum : sums) square += sum;
  const float factor = rsqrtf(square / static_cast<float>(columns) + 1e-6f);
  for (int j = threadIdx.x; j < columns; j += kThreads)
    result[j] = __float2half(__half2float(row[j]) * factor);
}

// [rows, q + 2 kv] to rows of queries, keys and values; where an engine would rotate them too.
__global__ void split(const __half* wide, __half* queries, __half* keys, __half* values, int q,
                      int kv) {
  const __half* row = wide + std::size_t{blockIdx.x} * (q + 2 * kv);
  for (int j = threadIdx.x; j < q + 2 * kv; j += kThreads) {
    if (j < q) {
      queries[std::size_t{blockIdx.x} * q + j] = row[j];
    } else if (j < q + kv) {
      keys[std::size_t{blockIdx.x} * kv + j - q] = row[j];
    } else {
      values[std::size_t{blockIdx.x} * kv + j - q - kv] = row[j];
    }
  }
}

// [rows, gate then up] to silu(gate) up.
__global__ void gate(const __half* wide, __half* results, int ffn) {
  const __half* row = wide + std::size_t{blockIdx.x} * 2 * ffn;
  for (int j = threadIdx.x; j < ffn; j += kThreads) {
    const float x = __half2float(row[j]);
    results[std::size_t{blockIdx.x} * ffn + j] =
        __float2half(x / (1 + __expf(-x)) * __half2float(row[ffn + j]));
  }
}

class DeviceArray {
 public:
  explicit DeviceArray(std::size_t elements) {
    require(cudaMalloc(&memory_, elements * sizeof(__half)), "memory for weights; fewer --layers");
  }
  ~DeviceArray() { (void)cudaFree(memory_); }
  DeviceArray(DeviceArray&& other) noexcept : memory_(std::exchange(other.memory_, nullptr)) {}
  DeviceArray& operator=(DeviceArray&&) = delete;
  __half* get() const { return static_cast<__half*>(memory_); }

 private:
  void* memory_ = nullptr;
};

// results [rows, outputs] (plus what is there, where `adds`) = rows [rows, inputs] times a matrix
// [outputs, inputs]. Plans are made once a shape.
class Multiplier {
 public:
  Multiplier() : workspace_(kWorkspaceBytes / sizeof(__half)) {
    require(cublas_.create(&handle_), "cuBLASLt");
  }
  ~Multiplier() {
    for (auto& [shape, plan] : plans_) {
      cublas_.destroy_matmul(plan.matmul);
      for (const cublasLtMatrixLayout_t layout : {plan.matrix, plan.rows, plan.results})
        cublas_.destroy_layout(layout);
    }
    cublas_.destroy(handle_);
  }
  Multiplier(const Multiplier&) = delete;
  Multiplier& operator=(const Multiplier&) = delete;

  void run(cudaStream_t stream, const __half* rows, Tokens count, const __half* matrix, int inputs,
           int outputs, __half* results, bool adds) {
    const Plan& plan = plan_for(count, inputs, outputs);
    const float one = 1, before = adds ? 1 : 0;
    require(cublas_.matmul(handle_, plan.matmul, &one, matrix, plan.matrix, rows, plan.rows,
                           &before, results, plan.results, results, plan.results, &plan.algorithm,
                           workspace_.get(), kWorkspaceBytes, stream),
            "a matrix product");
  }

 private:
  struct Plan {
    cublasLtMatmulDesc_t matmul{};
    cublasLtMatrixLayout_t matrix{}, rows{}, results{};
    cublasLtMatmulAlgo_t algorithm{};
  };

  // In cuBLAS's columns all is transposed: results' = matrix' rows'.
  const Plan& plan_for(Tokens count, int inputs, int outputs) {
    const auto [at, is_new] = plans_.try_emplace({count, inputs, outputs});
    Plan& plan = at->second;
    if (!is_new) return plan;
    const auto layout = [this](cublasLtMatrixLayout_t* made, int rows, Tokens columns) {
      require(cublas_.create_layout(made, CUDA_R_16F, static_cast<std::uint64_t>(rows),
                                    static_cast<std::uint64_t>(columns), rows),
              "a matrix");
    };
    require(cublas_.create_matmul(&plan.matmul, CUBLAS_COMPUTE_32F, CUDA_R_32F), "a product");
    const cublasOperation_t transposed = CUBLAS_OP_T;
    require(cublas_.set_matmul(plan.matmul, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                               sizeof transposed),
            "a product");
    layout(&plan.matrix, inputs, outputs);
    layout(&plan.rows, inputs, count);
    layout(&plan.results, outputs, count);
    cublasLtMatmulPreference_t preference{};
    require(cublas_.create_preference(&preference), "a preference");
    require(cublas_.set_preference(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                   &kWorkspaceBytes, sizeof kWorkspaceBytes),
            "a preference");
    cublasLtMatmulHeuristicResult_t found{};
    int count_found = 0;
    const cublasStatus_t status =
        cublas_.find_algorithms(handle_, plan.matmul, plan.matrix, plan.rows, plan.results,
                                plan.results, preference, 1, &found, &count_found);
    cublas_.destroy_preference(preference);
    require(count_found == 0 ? CUBLAS_STATUS_NOT_SUPPORTED : status, "an algorithm for a product");
    plan.algorithm = found.algo;
    return plan;
  }

  const CublasSymbols cublas_ = CublasSymbols::load();
  cublasLtHandle_t handle_{};
  DeviceArray workspace_;
  std::map<std::tuple<Tokens, int, int>, Plan> plans_;
};

class GpuDecoder final : public Decoder {
 public:
  GpuDecoder(GpuDriver& driver, const ModelGeometry& model, Tokens max_rows, std::uint64_t seed)
      : driver_(driver),
        model_(model),
        max_rows_(max_rows),
        q_(model.q_heads * model.head_dim),
        kv_(model.kv_heads * model.head_dim),
        at_(decoder_rows(model, max_rows)),
        stream_(driver.make_stream(false)),
        memory_(driver.make_device_memory(at_.bytes)),
        hidden_(elements(max_rows, model.hidden)),
        normed_(elements(max_rows, model.hidden)),
        wide_(elements(max_rows, std::max(q_ + 2 * kv_, 2 * model.ffn))),
        gated_(elements(max_rows, model.ffn)),
        logits_(elements(max_rows, model.vocabulary)),
        head_(matrix(model.hidden, model.vocabulary, ++seed)) {
    for (int layer = 0; layer < model.layers; ++layer)
      layers_.push_back(
          {matrix(model.hidden, q_ + 2 * kv_, ++seed), matrix(q_, model.hidden, ++seed),
           matrix(model.hidden, 2 * model.ffn, ++seed), matrix(model.ffn, model.hidden, ++seed)});
    require(cudaStreamSynchronize(stream()), "weights");
  }
  // What waits for a word that never comes is the driver's to give up.
  ~GpuDecoder() override { (void)cudaStreamSynchronize(stream()); }

  std::span<std::byte> memory() override { return memory_; }
  Tokens max_rows() const override { return max_rows_; }

  void embed(Tokens rows, Tokens first_token) override {
    fill(hidden_.get(), elements(rows, model_.hidden),
         static_cast<std::uint64_t>(first_token) << 32, 1);
  }
  void project(int layer, Tokens rows, EngineEvent done) override {
    normalize<<<static_cast<unsigned>(rows), kThreads, 0, stream()>>>(hidden_.get(), normed_.get(),
                                                                      model_.hidden);
    multiply(normed_, rows, weights(layer).qkv, model_.hidden, q_ + 2 * kv_, wide_, false);
    split<<<static_cast<unsigned>(rows), kThreads, 0, stream()>>>(
        wide_.get(), rows_at(at_.queries), rows_at(at_.keys), rows_at(at_.values), q_, kv_);
    raise(done);
  }
  void feed_forward(int layer, Tokens rows, EngineEvent after) override {
    if (after.value > 0 && driver_.wait_word(stream_, *after.word, after.value) != GpuResult::ok)
      throw Error("bench e2e: the GPU cannot wait: " + driver_.last_error());
    products_.run(stream(), rows_at(at_.outputs), rows, weights(layer).output.get(), q_,
                  model_.hidden, hidden_.get(), true);
    normalize<<<static_cast<unsigned>(rows), kThreads, 0, stream()>>>(hidden_.get(), normed_.get(),
                                                                      model_.hidden);
    multiply(normed_, rows, weights(layer).gate_up, model_.hidden, 2 * model_.ffn, wide_, false);
    gate<<<static_cast<unsigned>(rows), kThreads, 0, stream()>>>(wide_.get(), gated_.get(),
                                                                 model_.ffn);
    multiply(gated_, rows, weights(layer).down, model_.ffn, model_.hidden, hidden_, true);
    require(cudaGetLastError(), "a layer");
  }
  void sample(Tokens rows, EngineEvent done) override {
    normalize<<<static_cast<unsigned>(rows), kThreads, 0, stream()>>>(hidden_.get(), normed_.get(),
                                                                      model_.hidden);
    multiply(normed_, rows, head_, model_.hidden, model_.vocabulary, logits_, false);
    raise(done);
  }

 private:
  struct Layer {
    DeviceArray qkv, output, gate_up, down;
  };

  static std::size_t elements(Tokens rows, int columns) {
    return static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns);
  }
  cudaStream_t stream() const { return static_cast<cudaStream_t>(stream_); }
  __half* rows_at(Bytes offset) const { return reinterpret_cast<__half*>(memory_.data() + offset); }
  const Layer& weights(int layer) const { return layers_[static_cast<std::size_t>(layer)]; }

  void fill(__half* to, std::size_t count, std::uint64_t seed, float scale) {
    fill_noise<<<blocks_for(count), kThreads, 0, stream()>>>(to, count, seed, scale);
    require(cudaGetLastError(), "random numbers");
  }
  DeviceArray matrix(int inputs, int outputs, std::uint64_t seed) {
    DeviceArray made(elements(inputs, outputs));
    fill(made.get(), elements(inputs, outputs), seed << 40,
         1.7f / std::sqrt(static_cast<float>(inputs)));  // outputs about as large as inputs
    return made;
  }
  void multiply(const DeviceArray& rows, Tokens count, const DeviceArray& matrix, int inputs,
                int outputs, const DeviceArray& results, bool adds) {
    products_.run(stream(), rows.get(), count, matrix.get(), inputs, outputs, results.get(), adds);
  }
  void raise(EngineEvent done) {
    require(cudaGetLastError(), "a layer");
    if (done.value > 0 && driver_.write_word(stream_, *done.word, done.value) != GpuResult::ok)
      throw Error("bench e2e: the GPU cannot say that it is done: " + driver_.last_error());
  }

  GpuDriver& driver_;
  ModelGeometry model_;
  Tokens max_rows_;
  int q_, kv_;
  DecoderRows at_;
  GpuStream stream_;
  std::span<std::byte> memory_;
  DeviceArray hidden_, normed_, wide_, gated_, logits_,
      head_;  // [max_rows, ...]; the last: weights
  std::vector<Layer> layers_;
  Multiplier products_;
};

}  // namespace

std::unique_ptr<Decoder> gpu_decoder(GpuDriver& driver, const ModelGeometry& model, Tokens max_rows,
                                     std::uint64_t seed) {
  return std::make_unique<GpuDecoder>(driver, model, max_rows, seed);
}

}  // namespace modalkv
