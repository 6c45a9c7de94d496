// The vocabulary of attention_simd.hpp in AVX-512: vectors of 16 lanes. To be included inside the
// including file's namespace and under its target pragma, after every other header.
#pragma once

inline constexpr int kRowsAtOnce = rows_at_once(8);  // query rows that share what is loaded

struct Floats {
  __m512 v;
};
struct Words {
  __m512i v;
};

inline Floats zeros() {
  return {_mm512_setzero_ps()};
}
inline Floats broadcast(float x) {
  return {_mm512_set1_ps(x)};
}
inline Floats load(const float* from) {
  return {_mm512_loadu_ps(from)};
}
inline void store(float* to, Floats x) {
  _mm512_storeu_ps(to, x.v);
}
inline Floats operator+(Floats a, Floats b) {
  return {_mm512_add_ps(a.v, b.v)};
}
inline Floats operator-(Floats a, Floats b) {
  return {_mm512_sub_ps(a.v, b.v)};
}
inline Floats operator*(Floats a, Floats b) {
  return {_mm512_mul_ps(a.v, b.v)};
}
/// a b + c
inline Floats multiply_add(Floats a, Floats b, Floats c) {
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
inline Floats larger(Floats a, Floats b) {
  return {_mm512_max_ps(a.v, b.v)};
}
inline Floats magnitude(Floats x) {
  return {_mm512_abs_ps(x.v)};
}
inline Floats select(std::uint32_t mask, Floats yes, Floats no) {
  return {_mm512_mask_mov_ps(no.v, static_cast<__mmask16>(mask), yes.v)};
}
inline float sum(Floats x) {
  return _mm512_reduce_add_ps(x.v);
}
inline float largest(Floats x) {
  return _mm512_reduce_max_ps(x.v);
}
inline Floats nearest(Floats x) {
  return {_mm512_roundscale_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
/// x 2^n of whole numbers n in [-126, 127].
inline Floats times_power_of_two(Floats x, Floats n) {
  return {_mm512_scalef_ps(x.v, n.v)};
}

inline Words zero_words() {
  return {_mm512_setzero_si512()};
}
inline Words load_line(const std::byte* from) {
  return {_mm512_loadu_si512(from)};
}
inline Words operator+(Words a, Words b) {
  return {_mm512_add_epi32(a.v, b.v)};
}
inline Floats to_floats(Words integers) {
  return {_mm512_cvtepi32_ps(integers.v)};
}
/// A bit for each of 16 integers from `from` that is in [first, last]. Reads those of `mask` only.
inline std::uint32_t within(std::uint32_t mask, const std::int32_t* from, std::int32_t first,
                            std::int32_t last) {
  const auto wanted = static_cast<__mmask16>(mask);
  const __m512i x = _mm512_maskz_loadu_epi32(wanted, from);
  return _mm512_mask_cmple_epi32_mask(
      _mm512_mask_cmple_epi32_mask(wanted, x, _mm512_set1_epi32(last)), _mm512_set1_epi32(first),
      x);
}
/// 16 numbers of 16 or of 8 bits.
inline Floats load_fp16(const std::byte* from) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)))};
}
inline __m512i load_bytes(const std::byte* from) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
inline Floats load_int8(const std::byte* from) {
  return {_mm512_cvtepi32_ps(
      _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))))};
}
/// Scales are positive: no sign. E4M3 is FP16 but for the exponent's bias.
inline Floats load_e4m3(const std::byte* from) {
  const __m512i halves = _mm512_slli_epi32(load_bytes(from), 7);
  return {_mm512_mul_ps(_mm512_cvtph_ps(_mm512_cvtepi32_epi16(halves)), _mm512_set1_ps(256))};
}
inline Floats load_e8m0(const std::byte* from) {
  const __m512i codes = load_bytes(from);
  const __m512i lowest = _mm512_set1_epi32(0x00400000);  // 2^-127
  return {_mm512_castsi512_ps(_mm512_max_epi32(_mm512_slli_epi32(codes, 23), lowest))};
}

// Codes of a line, some elements of each row at a time. The operand of a row is whole multiples of
// a unit, at most kMostUnits, in terms of sizeof(Term) bytes. Of E2M1 numbers, the double plus 12
// makes codes of them.

/// Neighbours as 16-bit integers.
template <int bits, bool e2m1>
struct PairCodes {
  using Term = std::int16_t;
  static constexpr int kTerms = 1;
  static constexpr float kTermStep = 1, kMostUnits = 32767;  // 256 products stay below 2^31
  static constexpr int kElements = 2;                        // of each row in a vector
  static constexpr int kSteps = 16 / bits;                   // vectors of a line

  template <int step>
  static Words at(Words words) {
    const __m512i shifted = step == 0 ? words.v : _mm512_srli_epi16(words.v, bits * step);
    if constexpr (!e2m1)
      return {_mm512_and_si512(shifted, _mm512_set1_epi16(static_cast<short>((1 << bits) - 1)))};
    const __m512i levels =
        _mm512_set_epi16(0, 4, 6, 8, 9, 10, 11, 12, 24, 20, 18, 16, 15, 14, 13, 12, 0, 4, 6, 8, 9,
                         10, 11, 12, 24, 20, 18, 16, 15, 14, 13, 12);
    // The permutation looks at five bits, of which the fifth does not matter.
    return {_mm512_permutexvar_epi16(shifted, levels)};
  }
  /// Of 16 elements. Returns the units. `to` is the first of all terms plus the elements before.
  static Words store_terms(std::byte* to, std::size_t, Floats units) {
    const __m512i whole = _mm512_cvtps_epi32(units.v);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(whole));
    return {whole};
  }
  static Words add_products(Words sums, Words codes, std::int32_t terms) {
    return {_mm512_dpwssd_epi32(sums.v, codes.v, _mm512_set1_epi32(terms))};
  }
};

/// Fours of bytes, against two terms of 8 bits, high * 128 + low: less to unpack, more to add.
template <int bits, bool e2m1>
struct ByteCodes {
  using Term = std::int8_t;
  static constexpr int kTerms = 2;
  static constexpr float kTermStep = 128, kMostUnits = 127 * kTermStep;
  static constexpr int kElements = 4;
  static constexpr int kSteps = 8 / bits;

  template <int step>
  static Words at(Words words) {
    if constexpr (bits == 8) return words;
    const __m512i codes =
        _mm512_and_si512(step == 0 ? words.v : _mm512_srli_epi32(words.v, bits * step),
                         _mm512_set1_epi8(static_cast<char>((1 << bits) - 1)));
    if constexpr (!e2m1) return {codes};
    const __m128i levels = _mm_set_epi8(0, 4, 6, 8, 9, 10, 11, 12, 24, 20, 18, 16, 15, 14, 13, 12);
    return {_mm512_shuffle_epi8(_mm512_broadcast_i32x4(levels), codes)};
  }
  /// In the order in which `at` gives their codes; the low terms lie `count` behind the high ones.
  static Words store_terms(std::byte* to, std::size_t count, Floats units) {
    alignas(16) static constexpr auto order = [] {
      std::array<char, 16> places{};
      for (int i = 0; i < 16; ++i) {
        const int byte = i % 4, step = i / 4 % kSteps, word = i / 4 / kSteps;
        places[static_cast<std::size_t>(i)] =
            static_cast<char>(word * 4 * kSteps + 2 * (8 / bits * (byte % 2) + step) + byte / 2);
      }
      return places;
    }();
    const __m128i places = _mm_load_si128(reinterpret_cast<const __m128i*>(order.data()));
    const auto store_bytes = [&](std::byte* at, __m512i x) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(at),
                       _mm_shuffle_epi8(_mm512_cvtepi32_epi8(x), places));
    };
    const __m512i whole = _mm512_cvtps_epi32(units.v);
    const __m512i high = _mm512_srai_epi32(_mm512_add_epi32(whole, _mm512_set1_epi32(64)), 7);
    store_bytes(to, high);
    store_bytes(to + count, _mm512_sub_epi32(whole, _mm512_slli_epi32(high, 7)));
    return {whole};
  }
  static Words add_products(Words sums, Words codes, std::int32_t terms) {
    return {_mm512_dpbusd_epi32(sums.v, codes.v, _mm512_set1_epi32(terms))};
  }
};

/// What suits few query rows a head, for which unpacking counts, and many.
template <int bits, bool e2m1>
using CodesOfFewRows = ByteCodes<bits, e2m1>;
inline constexpr int kFewRows = 2;

/// Runs of lines that are worked on together, so that what is broadcast serves all of them. Few
/// rows wait for memory, which likes to be read in order.
constexpr int integer_width(int rows) {
  return rows <= kFewRows ? 1 : 2;
}
constexpr int float_width(int rows) {
  return rows == 3 || rows == 4 ? 2 : 1;
}
/// Sums of a row and a run, so that additions do not wait for each other.
constexpr int chains(int rows) {
  return rows <= kFewRows ? 2 : 1;
}

/// Pairs of numbers as floats, in two vectors; which lies where, only the three below know.
struct FloatPairs {
  Floats a, b;
};
/// Of products with each.
using PairSums = FloatPairs;

inline PairSums no_sums() {
  return {zeros(), zeros()};
}
inline PairSums operator+(const PairSums& a, const PairSums& b) {
  return {a.a + b.a, a.b + b.b};
}
inline PairSums add_products(const PairSums& sums, const FloatPairs& pairs,
                             const FloatPairs& factors) {
  return {multiply_add(pairs.a, factors.a, sums.a), multiply_add(pairs.b, factors.b, sums.b)};
}

/// Interleaved: rows 0 to 7 in a, 8 to 15 in b.
struct Fp16Pairs {
  static FloatPairs of(Words words) {
    return {{_mm512_cvtph_ps(_mm512_castsi512_si256(words.v))},
            {_mm512_cvtph_ps(_mm512_extracti64x4_epi64(words.v, 1))}};
  }
  static FloatPairs load(const std::byte* line) { return {load_fp16(line), load_fp16(line + 32)}; }
  static FloatPairs factors(const std::byte* pair) {
    double both;
    std::memcpy(&both, pair, sizeof(both));
    const Floats x{_mm512_castpd_ps(_mm512_set1_pd(both))};
    return {x, x};
  }
  static Floats rows(const FloatPairs& sums) {
    const __m512i even =
        _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i odd = _mm512_set_epi32(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
    return {_mm512_add_ps(_mm512_permutex2var_ps(sums.a.v, even, sums.b.v),
                          _mm512_permutex2var_ps(sums.a.v, odd, sums.b.v))};
  }
};

/// E4M3 numbers of pair `p` as FP16, 2^-8 of their value.
template <int p>
Words e4m3_as_fp16(Words words) {
  const __m512i signs = _mm512_set1_epi16(static_cast<short>(0x8000));
  const __m512i magnitudes = _mm512_set1_epi16(0x3f80);
  const __m512i top = p == 0 ? _mm512_slli_epi16(words.v, 8) : words.v;
  return {_mm512_or_si512(_mm512_and_si512(top, signs),
                          _mm512_and_si512(_mm512_srli_epi16(top, 1), magnitudes))};
}

/// The first of each pair in a, the second in b.
struct Bf16Pairs {
  static FloatPairs load(const std::byte* line) {
    const Words words = load_line(line);
    return {{_mm512_castsi512_ps(_mm512_slli_epi32(words.v, 16))},
            {_mm512_castsi512_ps(
                _mm512_and_si512(words.v, _mm512_set1_epi32(static_cast<int>(0xffff0000))))}};
  }
  static FloatPairs factors(const std::byte* pair) {
    float both[2];
    std::memcpy(both, pair, sizeof(both));
    return {broadcast(both[0]), broadcast(both[1])};
  }
  static Floats rows(const FloatPairs& sums) { return sums.a + sums.b; }
};

// Inlined early: GCC 12 drops calls of functions that do nothing but prefetch.
[[gnu::always_inline]] inline void prefetch(const std::byte* at) {
  _mm_prefetch(reinterpret_cast<const char*>(at), _MM_HINT_T0);
}
