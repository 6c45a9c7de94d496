// The vocabulary of attention_simd.hpp in AVX2 with FMA and F16C: vectors of 16 lanes are two of 8.
// To be included inside the including file's namespace and under its target pragma, after every
// other header and after
//   __m256i add_pair_products(__m256i sums, __m256i a, __m256i b)
// which adds the two products of 16-bit neighbours to each 32-bit sum.
//
// There are 16 registers: eight sums, a line, its codes, a broadcast and a mask are all they hold.
#pragma once

inline constexpr int kRowsAtOnce = rows_at_once(4);  // query rows that share what is loaded

struct Floats {
  __m256 low, high;
};
struct Words {
  __m256i low, high;
};

inline Floats broadcast(float x) {
  const __m256 all = _mm256_set1_ps(x);
  return {all, all};
}
inline Floats zeros() {
  return broadcast(0);
}
inline Floats load(const float* from) {
  return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)};
}
inline void store(float* to, Floats x) {
  _mm256_storeu_ps(to, x.low);
  _mm256_storeu_ps(to + 8, x.high);
}
inline Floats operator+(Floats a, Floats b) {
  return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}
inline Floats operator-(Floats a, Floats b) {
  return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
}
inline Floats operator*(Floats a, Floats b) {
  return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}
/// a b + c
inline Floats multiply_add(Floats a, Floats b, Floats c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
inline Floats larger(Floats a, Floats b) {
  return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
}
inline Floats magnitude(Floats x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, x.low), _mm256_andnot_ps(sign, x.high)};
}
/// All bits of the lanes whose bit in the lowest 8 of `mask` is set.
inline __m256i lanes_of(std::uint32_t mask) {
  const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(static_cast<int>(mask)), bits),
                            bits);
}
inline Floats select(std::uint32_t mask, Floats yes, Floats no) {
  return {_mm256_blendv_ps(no.low, yes.low, _mm256_castsi256_ps(lanes_of(mask))),
          _mm256_blendv_ps(no.high, yes.high, _mm256_castsi256_ps(lanes_of(mask >> 8)))};
}
inline float sum(Floats x) {
  const __m256 eight = _mm256_add_ps(x.low, x.high);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float largest(Floats x) {
  const __m256 eight = _mm256_max_ps(x.low, x.high);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
inline Floats nearest(Floats x) {
  constexpr int how = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(x.low, how), _mm256_round_ps(x.high, how)};
}

inline Words zero_words() {
  return {_mm256_setzero_si256(), _mm256_setzero_si256()};
}
inline Words load_line(const std::byte* from) {
  const auto* half = reinterpret_cast<const __m256i*>(from);
  return {_mm256_loadu_si256(half), _mm256_loadu_si256(half + 1)};
}
inline Words operator+(Words a, Words b) {
  return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)};
}
inline Words operator&(Words a, __m256i b) {
  return {_mm256_and_si256(a.low, b), _mm256_and_si256(a.high, b)};
}
/// The 16-bit halves of the words.
template <int bits>
Words shift_right(Words a) {
  if constexpr (bits == 0) return a;
  return {_mm256_srli_epi16(a.low, bits), _mm256_srli_epi16(a.high, bits)};
}
inline Words nearest_integers(Floats x) {
  return {_mm256_cvtps_epi32(x.low), _mm256_cvtps_epi32(x.high)};
}
inline Floats to_floats(Words integers) {
  return {_mm256_cvtepi32_ps(integers.low), _mm256_cvtepi32_ps(integers.high)};
}
/// x 2^n of whole numbers n in [-126, 127].
inline Floats times_power_of_two(Floats x, Floats n) {
  const Words exponents = nearest_integers(n + broadcast(127));
  return x * Floats{_mm256_castsi256_ps(_mm256_slli_epi32(exponents.low, 23)),
                    _mm256_castsi256_ps(_mm256_slli_epi32(exponents.high, 23))};
}
/// A bit for each of 16 integers from `from` that is in [first, last]. Reads those of `mask` only.
inline std::uint32_t within(std::uint32_t mask, const std::int32_t* from, std::int32_t first,
                            std::int32_t last) {
  const auto outside = [&](std::uint32_t wanted, const std::int32_t* at) {
    const __m256i x = _mm256_maskload_epi32(at, lanes_of(wanted));
    const __m256i out = _mm256_or_si256(_mm256_cmpgt_epi32(x, _mm256_set1_epi32(last)),
                                        _mm256_cmpgt_epi32(_mm256_set1_epi32(first), x));
    return static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(out)));
  };
  return mask & ~(outside(mask, from) | outside(mask >> 8, from + 8) << 8);
}
/// 16 numbers of 16 or of 8 bits.
inline Floats fp16_to_floats(__m256i halves) {
  return {_mm256_cvtph_ps(_mm256_castsi256_si128(halves)),
          _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1))};
}
inline __m128i load_bytes(const std::byte* from) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}
inline Floats load_fp16(const std::byte* from) {
  return {_mm256_cvtph_ps(load_bytes(from)), _mm256_cvtph_ps(load_bytes(from + 16))};
}
inline Floats load_int8(const std::byte* from) {
  const __m128i bytes = load_bytes(from);
  return to_floats(
      {_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(bytes, bytes))});
}
/// Scales are positive: no sign. E4M3 is FP16 but for the exponent's bias.
inline Floats load_e4m3(const std::byte* from) {
  const __m256i halves = _mm256_slli_epi16(_mm256_cvtepu8_epi16(load_bytes(from)), 7);
  return fp16_to_floats(halves) * broadcast(256);
}
inline Floats load_e8m0(const std::byte* from) {
  const __m128i bytes = load_bytes(from);
  const __m256i low = _mm256_slli_epi32(_mm256_cvtepu8_epi32(bytes), 23);
  const __m256i high =
      _mm256_slli_epi32(_mm256_cvtepu8_epi32(_mm_unpackhi_epi64(bytes, bytes)), 23);
  const __m256i lowest = _mm256_set1_epi32(0x00400000);  // 2^-127
  return {_mm256_castsi256_ps(_mm256_max_epi32(low, lowest)),
          _mm256_castsi256_ps(_mm256_max_epi32(high, lowest))};
}

/// Codes of a line, neighbours of each row as 16-bit integers. The operand of a row is whole
/// multiples of a unit, at most kMostUnits, in terms of sizeof(Term) bytes. Of E2M1 numbers, the
/// double plus 12 makes codes of them.
template <int bits, bool e2m1>
struct PairCodes {
  using Term = std::int16_t;
  static constexpr int kTerms = 1;
  static constexpr float kTermStep = 1, kMostUnits = 32767;  // 256 products stay below 2^31
  static constexpr int kElements = 2;                        // of each row in a vector
  static constexpr int kSteps = 16 / bits;                   // vectors of a line

  template <int step>
  static Words at(Words words) {
    if constexpr (e2m1) {
      // One look-up yields the codes of two steps.
      const Words nibbles = shift_right<step % 2 * 4>(words) & _mm256_set1_epi8(15);
      const __m256i levels = _mm256_broadcastsi128_si256(
          _mm_set_epi8(0, 4, 6, 8, 9, 10, 11, 12, 24, 20, 18, 16, 15, 14, 13, 12));
      const Words codes{_mm256_shuffle_epi8(levels, nibbles.low),
                        _mm256_shuffle_epi8(levels, nibbles.high)};
      return step < 2 ? codes & _mm256_set1_epi16(255) : shift_right<8>(codes);
    } else {
      const Words shifted = shift_right<bits * step>(words);
      return step + 1 == kSteps ? shifted : shifted & _mm256_set1_epi16((1 << bits) - 1);
    }
  }
  /// Of 16 elements. Returns the units. `to` is the first of all terms plus the elements before.
  static Words store_terms(std::byte* to, std::size_t, Floats units) {
    const Words whole = nearest_integers(units);
    const __m256i packed = _mm256_packs_epi32(whole.low, whole.high);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permute4x64_epi64(packed, 0xd8));
    return whole;
  }
  static Words add_products(Words sums, Words codes, std::int32_t terms) {
    const __m256i all = _mm256_set1_epi32(terms);
    return {add_pair_products(sums.low, codes.low, all),
            add_pair_products(sums.high, codes.high, all)};
  }
};

/// What suits few query rows a head, and many: the same.
template <int bits, bool e2m1>
using CodesOfFewRows = PairCodes<bits, e2m1>;
inline constexpr int kFewRows = 2;

/// Runs of lines that are worked on together, so that what is broadcast serves all of them.
constexpr int integer_width(int) {
  return 1;
}
constexpr int float_width(int) {
  return 1;
}
/// Sums of a row and a run, so that additions do not wait for each other.
constexpr int chains(int rows) {
  return rows == 1 ? 4 : rows == 2 ? 2 : 1;
}

/// Pairs of numbers as floats, the first of each pair in a, the second in b.
struct FloatPairs {
  Floats a, b;
};
/// Of products with both.
using PairSums = Floats;

inline PairSums no_sums() {
  return zeros();
}
inline PairSums add_products(PairSums sums, const FloatPairs& pairs, const FloatPairs& factors) {
  return multiply_add(pairs.b, factors.b, multiply_add(pairs.a, factors.a, sums));
}

struct BroadcastPairs {
  static FloatPairs factors(const std::byte* pair) {
    float both[2];
    std::memcpy(both, pair, sizeof(both));
    return {broadcast(both[0]), broadcast(both[1])};
  }
};

/// Of 8 rows, lanes are rows 0, 1, 4, 5, 2, 3, 6, 7.
struct Fp16Pairs : BroadcastPairs {
  static FloatPairs of(Words words) {
    return of(fp16_to_floats(words.low), fp16_to_floats(words.high));
  }
  static FloatPairs load(const std::byte* line) {
    return of(load_fp16(line), load_fp16(line + 32));
  }
  /// Of what lies one after another.
  static FloatPairs of(Floats low, Floats high) {
    return {
        {_mm256_shuffle_ps(low.low, low.high, 0x88), _mm256_shuffle_ps(high.low, high.high, 0x88)},
        {_mm256_shuffle_ps(low.low, low.high, 0xdd), _mm256_shuffle_ps(high.low, high.high, 0xdd)}};
  }
  static __m256 in_order(__m256 x) {
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(x), 0xd8));
  }
  static Floats rows(PairSums sums) { return {in_order(sums.low), in_order(sums.high)}; }
};

/// E4M3 numbers of pair `p` as FP16, 2^-8 of their value. The shift keeps the sign in its place.
template <int p>
__m256i e4m3_as_fp16(__m256i words) {
  const __m256i top = p == 0 ? _mm256_slli_epi16(words, 8) : words;
  return _mm256_and_si256(_mm256_srai_epi16(top, 1), _mm256_set1_epi16(static_cast<short>(0xbf80)));
}
template <int p>
Words e4m3_as_fp16(Words words) {
  return {e4m3_as_fp16<p>(words.low), e4m3_as_fp16<p>(words.high)};
}

struct Bf16Pairs : BroadcastPairs {
  static FloatPairs load(const std::byte* line) {
    const Words words = load_line(line);
    const Words second = words & _mm256_set1_epi32(static_cast<int>(0xffff0000));
    return {{_mm256_castsi256_ps(_mm256_slli_epi32(words.low, 16)),
             _mm256_castsi256_ps(_mm256_slli_epi32(words.high, 16))},
            {_mm256_castsi256_ps(second.low), _mm256_castsi256_ps(second.high)}};
  }
  static Floats rows(PairSums sums) { return sums; }
};

// Inlined early: GCC 12 drops calls of functions that do nothing but prefetch.
[[gnu::always_inline]] inline void prefetch(const std::byte* at) {
  _mm_prefetch(reinterpret_cast<const char*>(at), _MM_HINT_T0);
}
