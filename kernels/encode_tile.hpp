// A tile, 16 tokens of one head, on its way from the rows of an engine to floats in the first-level
// cache: keys lose their bias, are rotated and turned. Ranges of groups are found on the way.
// Unused tokens of the last tile are copies of its last one, which changes no range.
#pragma once

#include "kernels/lane_quantizer.hpp"

namespace modalkv {
namespace {

constexpr int kTileTokens = kLineRows;
constexpr int kMostTileElements = kTileTokens * kMaxHeadDim;

// Fetches vectors that the processor does not see coming by itself, as they are those of another
// head; a few cache lines at a time, so that memory works while the rest is computed.
class Fetcher {
 public:
  explicit Fetcher(int dims) : dims_(dims) {}

  void look_ahead(const Rows& rows, int head, Tokens token, Tokens count) {
    row_ = rows.elements + token * rows.token_stride + head * rows.head_stride;
    stride_ = rows.token_stride;
    dim_ = 0;
    rows_ = count;
  }

  // Inlined: GCC takes a function that only prefetches for one without effect.
  [[gnu::always_inline]] void fetch(int lines) {
    for (int i = 0; i < lines && rows_ > 0; ++i) {
      __builtin_prefetch(row_ + dim_);
      dim_ += kLineElements;
      if (dim_ < dims_) continue;
      dim_ = 0;
      row_ += stride_;
      --rows_;
    }
  }

 private:
  static constexpr int kLineElements = 32;  // 16-bit elements of a cache line

  int dims_, dim_ = 0;
  const std::uint16_t* row_ = nullptr;
  std::int64_t stride_ = 0;
  Tokens rows_ = 0;
};

class Tile {
 public:
  Tile(int dims, Tokens used) : fetcher(dims), dims_(dims), used_(used) {}

  // Of each group since start_range(): a lane for each token, or one for each channel.
  alignas(64) float least[kMaxHeadDim], most[kMaxHeadDim];
  Fetcher fetcher;

  // Its elements at a row of a line and a depth: K [dim][token], V [token][dim].
  const float* turned() const { return turned_; }
  const float* straight() const { return straight_; }

  void forget() { poison_ = Floats{}; }
  // False where an element since forget() was not finite.
  bool is_finite() const { return !any(bits_of(poison_) & 0x7fffffffu); }

  // Vectors as they are.
  struct Plain {
    std::array<const std::uint16_t*, kTileTokens> row;
  };
  Plain plain(const Rows& rows, int head, Tokens begin) const {
    Plain plain;
    for (int token = 0; token < kTileTokens; ++token)
      plain.row[static_cast<std::size_t>(token)] =
          rows.elements + std::min(begin + token, used_ - 1) * rows.token_stride +
          head * rows.head_stride;
    return plain;
  }

  // Keys that are changed first: floats.
  struct Changed {
    std::array<const float*, kTileTokens> row;
  };
  template <typename Input>
  Changed changed(const Plain& plain, const KeyBias* bias, int head, int rotation) {
    Changed changed;
    for (int token = 0; token < kTileTokens; ++token) {
      const auto index = static_cast<std::size_t>(token);
      float* to = straight_ + token * dims_;
      for (int dim = 0; dim < dims_; dim += kWidth)
        store(to + dim, Input::load(plain.row[index] + dim));
      if (bias != nullptr) subtract(bias->of_head(head), token);
      if (rotation > 0) rotate(to, rotation);
      changed.row[index] = to;
    }
    return changed;
  }

  // The cosines and sines of its tokens.
  void turn_bias(const KnownBias& known, Tokens begin) {
    const RopeSections& sections = known.bias->sections;
    for (int token = 0; token < kTileTokens; ++token) {
      const Tokens row = std::min(begin + token, used_ - 1);
      const std::int32_t* position = known.positions.data() + row * sections.axes();
      for (int pair = 0; pair < dims_ / 2; ++pair) {
        const Rotation turn = known.bias->turn(position, pair);
        cosines_[token][pair] = turn.cosine;
        sines_[token][pair] = turn.sine;
      }
    }
  }

  // Turns some channels; a lane of their range, where that is `wanted`, is a token.
  template <typename Input, bool wanted, typename Vectors>
  void turn_along(const Vectors& vectors, int dim, int end) {
    for (int part = 0; part < kTileTokens; part += kWidth) {
      const auto* rows = vectors.row.data() + part;
      Floats low{}, high{}, bad[kChains] = {};
      for (int at = dim; at < end; at += kWidth) {
        Floats block[kWidth];
        for (int i = 0; i < kWidth; ++i) block[i] = Input::load(rows[i] + at);
        transpose(block);
        float* to = turned_ + at * kTileTokens + part;
        for (int i = 0; i < kWidth; ++i) store(to + i * kTileTokens, block[i]);
        if constexpr (wanted) {
          for (int i = 0; i < kWidth; ++i)
            bad[i % kChains] = Machine::add_poison(bad[i % kChains], block[i]);
          const Floats lesser = fold<Lesser>(block), greater = fold<Greater>(block);
          low = at == dim ? lesser : Machine::lesser(low, lesser);
          high = at == dim ? greater : Machine::greater(high, greater);
        }
        fetcher.fetch(kLinesAtOnce * kWidth * kWidth / 256);
      }
      if constexpr (wanted) {
        store(least + part, low);
        store(most + part, high);
        poison_ += (bad[0] + bad[1]) + (bad[2] + bad[3]);
      }
    }
  }

  // Loads some channels; a lane of their range, where that is `wanted`, is a token.
  template <typename Input, bool wanted, typename Vectors>
  void load_across(const Vectors& vectors, int dim, int end) {
    Floats lows[kTileTokens], highs[kTileTokens];
    for (int token = 0; token < kTileTokens; ++token) {
      const auto* row = vectors.row[static_cast<std::size_t>(token)];
      float* to = straight_ + token * dims_;
      Floats low{}, high{}, bad{};
      for (int at = dim; at < end; at += kWidth) {
        const Floats value = Input::load(row + at);
        store(to + at, value);
        if constexpr (wanted) {
          low = at == dim ? value : Machine::lesser(value, low);
          high = at == dim ? value : Machine::greater(value, high);
          bad = Machine::add_poison(bad, value);
        }
      }
      lows[token] = low;
      highs[token] = high;
      poison_ += bad;
      fetcher.fetch(kLinesAtOnce / 2);
    }
    if constexpr (!wanted) return;
    for (int part = 0; part < kTileTokens; part += kWidth) {
      store(least + part, reduce<Lesser>(lows + part));
      store(most + part, reduce<Greater>(highs + part));
    }
  }

  // Only looks; a lane of the range is a channel. Adds to the range where it is not the `first`.
  template <typename Input, typename Vectors>
  void range_down(const Vectors& vectors, bool first) {
    for (int dim = 0; dim < dims_; dim += kWidth) {
      Floats low = Input::load(vectors.row[0] + dim), high = low, bad[kChains] = {};
      for (int token = 0; token < kTileTokens; ++token) {
        const Floats value = Input::load(vectors.row[static_cast<std::size_t>(token)] + dim);
        low = Machine::lesser(value, low);
        high = Machine::greater(value, high);
        bad[token % kChains] = Machine::add_poison(bad[token % kChains], value);
      }
      store(least + dim, first ? low : Machine::lesser(low, load<Floats>(least + dim)));
      store(most + dim, first ? high : Machine::greater(high, load<Floats>(most + dim)));
      poison_ += (bad[0] + bad[1]) + (bad[2] + bad[3]);
      fetcher.fetch(kLinesAtOnce * kWidth / kTileTokens);
    }
  }

 private:
  static constexpr int kLinesAtOnce = 8;  // fetched for each 16 x 16 elements
  static constexpr int kChains = 4;       // of sums, as one would wait for itself

  void subtract(const float* bias, int token) {
    const int half = dims_ / 2;
    float* low = straight_ + token * dims_;
    for (int i = 0; i < half; ++i) {
      const float cosine = cosines_[token][i], sine = sines_[token][i];
      low[i] -= bias[i] * cosine - bias[i + half] * sine;
      low[i + half] -= bias[i + half] * cosine + bias[i] * sine;
    }
  }

  // rotate_blocks() of one vector.
  void rotate(float* vector, int order) const {
    constexpr int kMost = kMaxHeadDim / kWidth;
    Floats parts[kMost];
    const int count = dims_ / kWidth, block = order / kWidth;
    for (int i = 0; i < count; ++i) parts[i] = butterflies(load<Floats>(vector + i * kWidth));
    for (int apart = 1; apart < block; apart *= 2)
      for (int i = 0; i < count; ++i) {
        if ((i & apart) != 0) continue;
        const Floats a = parts[i], b = parts[i + apart];
        parts[i] = a + b;
        parts[i + apart] = a - b;
      }
    for (int i = 0; i < count; ++i) store(vector + i * kWidth, parts[i] * hadamard_scale(order));
  }

  int dims_;
  Tokens used_;
  Floats poison_{};
  alignas(64) float straight_[kMostTileElements], turned_[kMostTileElements];
  alignas(64) float cosines_[kTileTokens][kMaxHeadDim / 2], sines_[kTileTokens][kMaxHeadDim / 2];
};

}  // namespace
}  // namespace modalkv
