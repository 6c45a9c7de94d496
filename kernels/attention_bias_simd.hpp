// What a known key bias adds to the logits of a block of tokens (key_bias.hpp), in the vocabulary
// of attention_simd.hpp, which includes this file.
//
// A token's logit lacks C_i cos(p f_i) + S_i sin(p f_i), summed over pairs i. Positions within a
// block are mostly near each other, p = base + offset: then C and S are turned by the base once,
// and the sum is made once for each offset, from cosines that all blocks share. Image tokens under
// m-RoPE have few offsets in two of three axes.
#pragma once

constexpr int kMaxPairs = kMaxHeadDim / 2;
constexpr int kOffsets = kBlockTokens;

// Cosines and sines of some turns of each pair.
struct Turns {
  std::array<std::array<float, kOffsets>, kMaxPairs> cosines, sines;

  void set(int pair, int turn, const Rotation& rotation) {
    cosines[static_cast<std::size_t>(pair)][static_cast<std::size_t>(turn)] = rotation.cosine;
    sines[static_cast<std::size_t>(pair)][static_cast<std::size_t>(turn)] = rotation.sine;
  }
};

class BlockBias {
 public:
  BlockBias(const KnownBias& known, Tokens tokens) : known_(known), tokens_(tokens) {
    const KeyBias& bias = *known_.bias;
    for (int pair = 0; pair < pairs(); ++pair)
      for (int offset = 0; offset < kOffsets; ++offset)
        near_.set(pair, offset, rotation(offset, bias.frequencies[pair]));
  }

  /// The tokens of the list that the next calls of add_to are about.
  void move_to(Tokens begin) {
    const KeyBias& bias = *known_.bias;
    const int axes = bias.sections.axes();
    const auto count = static_cast<int>(std::min<Tokens>(kBlockTokens, tokens_ - begin));
    const std::int32_t* positions = known_.positions.data() + begin * axes;
    for (int axis = 0, first = 0; axis < axes; ++axis) {
      Axis& a = axes_[static_cast<std::size_t>(axis)];
      a.first = first;
      a.end = axes == 1 ? pairs() : first + bias.sections.pairs[static_cast<std::size_t>(axis)];
      first = a.end;
      std::int32_t least = positions[axis], most = least;
      for (int t = 1; t < count; ++t) {
        least = std::min(least, positions[t * axes + axis]);
        most = std::max(most, positions[t * axes + axis]);
      }
      const std::int64_t range = std::int64_t{most} - least;
      a.turns = range < kOffsets ? &near_ : &far_;
      a.count = range < kOffsets ? static_cast<int>(range) + 1 : count;
      a.offsets = {};
      for (int t = 0; t < count; ++t)
        a.offsets[static_cast<std::size_t>(t)] =
            static_cast<std::uint8_t>(range < kOffsets ? positions[t * axes + axis] - least : t);
      for (int pair = a.first; pair < a.end; ++pair) {
        const float frequency = bias.frequencies[pair];
        base_[static_cast<std::size_t>(pair)] = rotation(range < kOffsets ? least : 0, frequency);
        if (range >= kOffsets)
          for (int t = 0; t < count; ++t)
            far_.set(pair, t, rotation(positions[t * axes + axis], frequency));
      }
    }
  }

  /// To the logits [kBlockTokens] of a row.
  void add_to(std::span<const float, kMaxPairs> cosine_terms,
              std::span<const float, kMaxPairs> sine_terms, float* logits) const {
    for (int axis = 0; axis < known_.bias->sections.axes(); ++axis) {
      const Axis& a = axes_[static_cast<std::size_t>(axis)];
      std::array<Floats, kOffsets / kLineRows> sums;
      sums.fill(zeros());
      const int lanes = static_cast<int>(divide_up(a.count, kLineRows));
      for (auto pair = static_cast<std::size_t>(a.first); pair < static_cast<std::size_t>(a.end);
           ++pair) {
        const Rotation base = base_[pair];
        const float c = cosine_terms[pair], s = sine_terms[pair];
        const Floats cosine = broadcast(c * base.cosine + s * base.sine);
        const Floats sine = broadcast(s * base.cosine - c * base.sine);
        for (std::size_t i = 0; i < static_cast<std::size_t>(lanes); ++i) {
          sums[i] = multiply_add(cosine, load(&a.turns->cosines[pair][i * kLineRows]), sums[i]);
          sums[i] = multiply_add(sine, load(&a.turns->sines[pair][i * kLineRows]), sums[i]);
        }
      }
      std::array<float, kOffsets> added;
      for (std::size_t i = 0; i < sums.size(); ++i) store(&added[i * kLineRows], sums[i]);
      for (std::size_t t = 0; t < kBlockTokens; ++t) logits[t] += added[a.offsets[t]];
    }
  }

 private:
  struct Axis {
    int first, end;      // pairs
    int count;           // turns
    const Turns* turns;  // near_: by offset from the least position; far_: token by token
    std::array<std::uint8_t, kBlockTokens> offsets;  // the turn of each token
  };

  int pairs() const { return known_.bias->head_dim / 2; }

  KnownBias known_;
  Tokens tokens_;
  std::array<Axis, 3> axes_;
  std::array<Rotation, kMaxPairs> base_;
  Turns near_, far_;
};
