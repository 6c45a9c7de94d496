// A decoder on a thread of this process, in binary32: stands in where there is no GPU, so that the
// harness can be run and tested. It is slow, and no measure of any GPU.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "tools/bench/e2e/decoder.hpp"

namespace modalkv {

class HostDecoder final : public Decoder {
 public:
  /// Throws Error where its weights do not fit the machine's memory.
  HostDecoder(const ModelGeometry& model, Tokens max_rows, std::uint64_t seed);

  std::span<std::byte> memory() override { return memory_; }
  Tokens max_rows() const override { return max_rows_; }
  void embed(Tokens rows, Tokens first_token) override;
  void project(int layer, Tokens rows, EngineEvent done) override;
  void feed_forward(int layer, Tokens rows, EngineEvent after) override;
  void sample(Tokens rows, EngineEvent done) override;

 private:
  using Matrix = std::vector<float>;  // [inputs, outputs]
  struct Layer {
    Matrix qkv, output, gate, up, down;
  };

  void enqueue(std::function<void()> task);
  void run(const std::stop_token& stop);
  void wait_for(EngineEvent event);
  void do_project(int layer, Tokens rows);
  void do_feed_forward(int layer, Tokens rows);

  ModelGeometry model_;
  Tokens max_rows_;
  DecoderRows at_;
  std::vector<std::byte> memory_;
  std::vector<Layer> layers_;
  Matrix head_;
  std::vector<float> hidden_, normed_, wide_, gate_;  // [max_rows, ...]
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<std::function<void()>> tasks_;
  std::stop_token stopping_;
  std::jthread thread_;  // last: it ends before what it uses
};

}  // namespace modalkv
