#include "tools/bench/e2e/host_decoder.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <random>
#include <utility>

#include "kernels/number.hpp"
#include "tools/bench/huge_buffer.hpp"

namespace modalkv {
namespace {

constexpr auto kEventPoll = std::chrono::microseconds(5);

std::size_t size(Tokens rows, int columns) {
  return static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns);
}

// Outputs about as large as inputs.
std::vector<float> random_matrix(int inputs, int outputs, std::mt19937_64& random) {
  std::normal_distribution<float> normal(0, 1 / std::sqrt(static_cast<float>(inputs)));
  std::vector<float> period(4093);  // a prime: rows differ
  for (float& element : period) element = normal(random);
  std::vector<float> matrix(size(inputs, outputs));
  for (std::size_t i = 0; i < matrix.size(); ++i) matrix[i] = period[i % period.size()];
  return matrix;
}

// results [rows, outputs] = rows [rows, inputs] times the matrix.
void multiply(const float* rows, Tokens count, const std::vector<float>& matrix, int inputs,
              int outputs, float* results) {
  // Rows that share a read of the matrix, and columns of them that stay in the first cache.
  constexpr Tokens kRows = 8;
  constexpr int kColumns = 512;
  for (Tokens begin = 0; begin < count; begin += kRows) {
    const Tokens end = std::min(begin + kRows, count);
    std::fill(results + begin * outputs, results + end * outputs, 0.0f);
    for (int first = 0; first < outputs; first += kColumns) {
      const int columns = std::min(kColumns, outputs - first);
      for (int k = 0; k < inputs; ++k) {
        const float* weights = matrix.data() + size(k, outputs) + first;
        for (Tokens row = begin; row < end; ++row) {
          const float factor = rows[row * inputs + k];
          float* result = results + row * outputs + first;
          for (int j = 0; j < columns; ++j) result[j] += factor * weights[j];
        }
      }
    }
  }
}

void normalize(const float* rows, Tokens count, int columns, float* results) {
  for (Tokens row = 0; row < count; ++row, rows += columns, results += columns) {
    float square = 0;
    for (int j = 0; j < columns; ++j) square += rows[j] * rows[j];
    const float factor = 1 / std::sqrt(square / static_cast<float>(columns) + 1e-6f);
    for (int j = 0; j < columns; ++j) results[j] = rows[j] * factor;
  }
}

Bytes weights_of(const ModelGeometry& model) {
  return static_cast<Bytes>(4 *
                            (model.layers * (attention_parameters(model) + ffn_parameters(model)) +
                             static_cast<double>(model.vocabulary) * model.hidden));
}

}  // namespace

HostDecoder::HostDecoder(const ModelGeometry& model, Tokens max_rows, std::uint64_t seed)
    : model_(model),
      max_rows_(max_rows),
      at_(decoder_rows(model, max_rows)),
      memory_(static_cast<std::size_t>(at_.bytes)) {
  require_memory(weights_of(model), "weights of the model in 32 bits; use fewer --layers");
  std::mt19937_64 random(seed);
  const int q = model.q_heads * model.head_dim, kv = model.kv_heads * model.head_dim;
  for (int layer = 0; layer < model.layers; ++layer)
    layers_.push_back({random_matrix(model.hidden, q + 2 * kv, random),
                       random_matrix(q, model.hidden, random),
                       random_matrix(model.hidden, model.ffn, random),
                       random_matrix(model.hidden, model.ffn, random),
                       random_matrix(model.ffn, model.hidden, random)});
  head_ = random_matrix(model.hidden, model.vocabulary, random);
  hidden_.resize(size(max_rows, model.hidden));
  normed_.resize(size(max_rows, std::max(model.hidden, q)));
  wide_.resize(size(max_rows, std::max({q + 2 * kv, model.ffn, model.hidden})));
  gate_.resize(size(max_rows, model.ffn));
  thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

void HostDecoder::embed(Tokens rows, Tokens first_token) {
  enqueue([=, this] {
    for (Tokens row = 0; row < rows; ++row) {
      std::mt19937_64 random(static_cast<std::uint64_t>(first_token + row));
      std::normal_distribution<float> normal;
      float* hidden = hidden_.data() + row * model_.hidden;
      std::generate(hidden, hidden + model_.hidden, [&] { return normal(random); });
    }
  });
}

void HostDecoder::project(int layer, Tokens rows, EngineEvent done) {
  enqueue([=, this] {
    do_project(layer, rows);
    let_happen(done);
  });
}

void HostDecoder::feed_forward(int layer, Tokens rows, EngineEvent after) {
  enqueue([=, this] {
    wait_for(after);
    do_feed_forward(layer, rows);
  });
}

void HostDecoder::sample(Tokens rows, EngineEvent done) {
  enqueue([=, this] {
    std::vector<float> logits(size(rows, model_.vocabulary));
    normalize(hidden_.data(), rows, model_.hidden, normed_.data());
    multiply(normed_.data(), rows, head_, model_.hidden, model_.vocabulary, logits.data());
    let_happen(done);
  });
}

void HostDecoder::do_project(int layer, Tokens rows) {
  const int q = model_.q_heads * model_.head_dim, kv = model_.kv_heads * model_.head_dim;
  normalize(hidden_.data(), rows, model_.hidden, normed_.data());
  multiply(normed_.data(), rows, layers_[static_cast<std::size_t>(layer)].qkv, model_.hidden,
           q + 2 * kv, wide_.data());
  const auto store = [&](int from, int columns, Bytes at) {
    auto* to = reinterpret_cast<std::uint16_t*>(memory_.data() + at);
    for (Tokens row = 0; row < rows; ++row)
      for (int j = 0; j < columns; ++j)
        to[row * columns + j] =
            to_fp16(wide_[static_cast<std::size_t>(row * (q + 2 * kv) + from + j)]);
  };
  store(0, q, at_.queries);
  store(q, kv, at_.keys);
  store(q + kv, kv, at_.values);
}

void HostDecoder::do_feed_forward(int layer, Tokens rows) {
  const Layer& weights = layers_[static_cast<std::size_t>(layer)];
  const int q = model_.q_heads * model_.head_dim, hidden = model_.hidden, ffn = model_.ffn;
  const auto add = [&] {
    for (std::size_t i = 0; i < size(rows, hidden); ++i) hidden_[i] += wide_[i];
  };
  const auto* outputs = reinterpret_cast<const std::uint16_t*>(memory_.data() + at_.outputs);
  for (std::size_t i = 0; i < size(rows, q); ++i) normed_[i] = from_fp16(outputs[i]);
  multiply(normed_.data(), rows, weights.output, q, hidden, wide_.data());
  add();
  normalize(hidden_.data(), rows, hidden, normed_.data());
  multiply(normed_.data(), rows, weights.gate, hidden, ffn, gate_.data());
  multiply(normed_.data(), rows, weights.up, hidden, ffn, wide_.data());
  for (std::size_t i = 0; i < size(rows, ffn); ++i)
    gate_[i] = gate_[i] / (1 + std::exp(-gate_[i])) * wide_[i];
  multiply(gate_.data(), rows, weights.down, ffn, hidden, wide_.data());
  add();
}

void HostDecoder::enqueue(std::function<void()> task) {
  const std::lock_guard lock(mutex_);
  tasks_.push_back(std::move(task));
  changed_.notify_one();
}

void HostDecoder::run(const std::stop_token& stop) {
  stopping_ = stop;
  while (true) {
    std::function<void()> task;
    {
      std::unique_lock lock(mutex_);
      if (!changed_.wait(lock, stop, [&] { return !tasks_.empty(); })) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    if (stop.stop_requested()) return;
    task();
  }
}

void HostDecoder::wait_for(EngineEvent event) {
  while (!has_happened(event) && !stopping_.stop_requested())
    std::this_thread::sleep_for(kEventPoll);
}

}  // namespace modalkv
