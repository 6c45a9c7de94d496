// The engine's part of a model: what projects hidden states to queries, keys and values, and what
// feeds attention's outputs forward. Weights are random: only their shapes cost time.
#pragma once

#include <cstddef>
#include <span>

#include "modalkv/event.hpp"
#include "modalkv/model.hpp"
#include "modalkv/units.hpp"

namespace modalkv {

/// Where the rows of a call lie in a decoder's memory: 16-bit numbers, FP16.
struct DecoderRows {
  Bytes queries = 0;  ///< [rows, q_heads, head_dim]
  Bytes keys = 0;     ///< [rows, kv_heads, head_dim], as are values
  Bytes values = 0;
  Bytes outputs = 0;  ///< of attention, as queries
  Bytes bytes = 0;    ///< of all of them
};

/// Of `max_rows` rows, each kind on a boundary of 256 bytes.
constexpr DecoderRows decoder_rows(const ModelGeometry& model, Tokens max_rows) {
  constexpr Bytes kBoundaryBytes = 256;
  const Bytes query = round_up(max_rows * model.q_heads * model.head_dim * 2, kBoundaryBytes);
  const Bytes key = round_up(max_rows * model.kv_heads * model.head_dim * 2, kBoundaryBytes);
  return {0, query, query + key, query + 2 * key, 2 * query + 2 * key};
}

/// Calls return at once and are done in order, each once what it waits for has happened. One thread
/// at a time calls it. Destroying it waits for what has begun and drops the rest.
class Decoder {
 public:
  virtual ~Decoder() = default;

  /// The rows of decoder_rows(), which the device can see.
  virtual std::span<std::byte> memory() = 0;
  virtual Tokens max_rows() const = 0;

  /// The hidden states of `rows` tokens, `first_token` the first of them.
  virtual void embed(Tokens rows, Tokens first_token) = 0;
  /// Normalizes and projects; raises `done` when queries, keys and values are written.
  virtual void project(int layer, Tokens rows, EngineEvent done) = 0;
  /// The output projection of attention's outputs, once `after` has happened, and the FFN.
  virtual void feed_forward(int layer, Tokens rows, EngineEvent after) = 0;
  /// The next token of the last `rows` of the rows by the LM head.
  virtual void sample(Tokens rows, EngineEvent done) = 0;

 protected:
  Decoder() = default;
  Decoder(const Decoder&) = default;
  Decoder& operator=(const Decoder&) = default;
};

}  // namespace modalkv
