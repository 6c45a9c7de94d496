// Sixteen lanes of 32 bits, one a row of a line (page_layout.hpp), in as many vectors of the
// processor as it takes. Each target includes this file behind its own target pragma and its
// `Machine`, so everything here has internal linkage and nothing of one target can reach another.
//
// Machine::kWidth      lanes of a vector: 4, 8 or 16
// Machine::Floats      such a vector; Words: of unsigned integers
// Machine::lesser      a < b ? a : b, lane by lane; greater: a > b ? a : b
// Machine::from_fp16   kWidth FP16 numbers in memory, exact; to_fp16: rounded as kernels/number.hpp
#include <bit>
#include <cstdint>
#include <cstring>
#include <utility>

namespace modalkv {
namespace {

constexpr int kLanes = 16;
constexpr int kWidth = Machine::kWidth, kParts = kLanes / kWidth;

using FloatPart = Machine::Floats;
using WordPart = Machine::Words;
using HalfPart [[gnu::vector_size(2 * kWidth)]] = std::uint16_t;
using BytePart [[gnu::vector_size(kWidth)]] = std::uint8_t;
using LongPart [[gnu::vector_size(4 * kWidth)]] = std::uint64_t;

struct Floats {
  FloatPart part[kParts];
};
struct Words {
  WordPart part[kParts];
};

[[gnu::always_inline]] inline Floats broadcast(float value) {
  Floats all;
  for (FloatPart& part : all.part) part = value - FloatPart{};
  return all;
}
[[gnu::always_inline]] inline Words broadcast(std::uint32_t value) {
  Words all;
  for (WordPart& part : all.part) part = value - WordPart{};
  return all;
}
[[gnu::always_inline]] inline Floats load(const float* from) {
  Floats all;
  std::memcpy(&all, from, sizeof(all));
  return all;
}
[[gnu::always_inline]] inline void store(float* to, const Floats& from) {
  std::memcpy(to, &from, sizeof(from));
}

[[gnu::always_inline]] inline Floats operator+(const Floats& a, const Floats& b) {
  Floats all;
  for (int i = 0; i < kParts; ++i) all.part[i] = a.part[i] + b.part[i];
  return all;
}
[[gnu::always_inline]] inline Floats operator-(const Floats& a, const Floats& b) {
  Floats all;
  for (int i = 0; i < kParts; ++i) all.part[i] = a.part[i] - b.part[i];
  return all;
}
[[gnu::always_inline]] inline Floats operator*(const Floats& a, const Floats& b) {
  Floats all;
  for (int i = 0; i < kParts; ++i) all.part[i] = a.part[i] * b.part[i];
  return all;
}
[[gnu::always_inline]] inline Floats operator*(const Floats& a, float b) {
  return a * broadcast(b);
}
[[gnu::always_inline]] inline Floats operator/(const Floats& a, const Floats& b) {
  Floats all;
  for (int i = 0; i < kParts; ++i) all.part[i] = a.part[i] / b.part[i];
  return all;
}
[[gnu::always_inline]] inline Floats lesser(const Floats& a, const Floats& b) {
  Floats all;
  for (int i = 0; i < kParts; ++i) all.part[i] = Machine::lesser(a.part[i], b.part[i]);
  return all;
}
[[gnu::always_inline]] inline Floats greater(const Floats& a, const Floats& b) {
  Floats all;
  for (int i = 0; i < kParts; ++i) all.part[i] = Machine::greater(a.part[i], b.part[i]);
  return all;
}

[[gnu::always_inline]] inline Words operator+(const Words& a, const Words& b) {
  Words all;
  for (int i = 0; i < kParts; ++i) all.part[i] = a.part[i] + b.part[i];
  return all;
}
[[gnu::always_inline]] inline Words operator-(const Words& a, const Words& b) {
  Words all;
  for (int i = 0; i < kParts; ++i) all.part[i] = a.part[i] - b.part[i];
  return all;
}
[[gnu::always_inline]] inline Words operator&(const Words& a, const Words& b) {
  Words all;
  for (int i = 0; i < kParts; ++i) all.part[i] = a.part[i] & b.part[i];
  return all;
}
[[gnu::always_inline]] inline Words operator|(const Words& a, const Words& b) {
  Words all;
  for (int i = 0; i < kParts; ++i) all.part[i] = a.part[i] | b.part[i];
  return all;
}
[[gnu::always_inline]] inline Words operator<<(const Words& a, int bits) {
  Words all;
  for (int i = 0; i < kParts; ++i) all.part[i] = a.part[i] << bits;
  return all;
}
[[gnu::always_inline]] inline Words operator>>(const Words& a, int bits) {
  Words all;
  for (int i = 0; i < kParts; ++i) all.part[i] = a.part[i] >> bits;
  return all;
}

[[gnu::always_inline]] inline Words bits_of(const Floats& a) {
  return __builtin_bit_cast(Words, a);
}
[[gnu::always_inline]] inline Floats floats_of(const Words& a) {
  return __builtin_bit_cast(Floats, a);
}

// All bits of a lane where a < b, else none.
[[gnu::always_inline]] inline Words is_less(const Floats& a, const Floats& b) {
  Words all;
  for (int i = 0; i < kParts; ++i)
    all.part[i] = __builtin_bit_cast(WordPart, a.part[i] < b.part[i]);
  return all;
}
// Of words below 2^31.
[[gnu::always_inline]] inline Words is_less(const Words& a, const Words& b) {
  Words all;
  for (int i = 0; i < kParts; ++i) {
    using Signed [[gnu::vector_size(4 * kWidth)]] = std::int32_t;
    all.part[i] = __builtin_bit_cast(
        WordPart, __builtin_bit_cast(Signed, a.part[i]) < __builtin_bit_cast(Signed, b.part[i]));
  }
  return all;
}
[[gnu::always_inline]] inline Words select(const Words& mask, const Words& a, const Words& b) {
  Words all;
  for (int i = 0; i < kParts; ++i)
    all.part[i] = (a.part[i] & mask.part[i]) | (b.part[i] & ~mask.part[i]);
  return all;
}
[[gnu::always_inline]] inline Floats select(const Words& mask, const Floats& a, const Floats& b) {
  return floats_of(select(mask, bits_of(a), bits_of(b)));
}
[[gnu::always_inline]] inline Words lesser(const Words& a, const Words& b) {
  return select(is_less(a, b), a, b);
}
[[gnu::always_inline]] inline Floats absolute(const Floats& a) {
  return floats_of(bits_of(a) & broadcast(0x7fffffffu));
}
[[gnu::always_inline]] inline bool any(const Words& a) {
  WordPart all = a.part[0];
  for (int i = 1; i < kParts; ++i) all |= a.part[i];
  LongPart longs = __builtin_bit_cast(LongPart, all);
  std::uint64_t bits = 0;
  for (int i = 0; i < kWidth / 2; ++i) bits |= longs[i];
  return bits != 0;
}

[[gnu::always_inline]] inline Floats from_fp16(const std::uint16_t* from) {
  Floats all;
  for (int i = 0; i < kParts; ++i) all.part[i] = Machine::from_fp16(from + i * kWidth);
  return all;
}
[[gnu::always_inline]] inline Words to_fp16(const Floats& a) {
  Words all;
  for (int i = 0; i < kParts; ++i) all.part[i] = Machine::to_fp16(a.part[i]);
  return all;
}
[[gnu::always_inline]] inline Floats from_bf16(const std::uint16_t* from) {
  Floats all;
  for (int i = 0; i < kParts; ++i) {
    HalfPart halves;
    std::memcpy(&halves, from + i * kWidth, sizeof(halves));
    all.part[i] = __builtin_bit_cast(FloatPart, __builtin_convertvector(halves, WordPart) << 16);
  }
  return all;
}
[[gnu::always_inline]] inline Words to_bf16(const Floats& a) {
  const Words bits = bits_of(a);
  return (bits + broadcast(0x7fffu) + (bits >> 16 & broadcast(1u))) >> 16;
}

// The low `bytes` (0 to 2) of each lane, one after another.
[[gnu::always_inline]] inline void store_low(std::byte* to, const Words& from, int bytes) {
  for (int i = 0; i < kParts; ++i) {
    if (bytes == 2) {
      const HalfPart halves = __builtin_convertvector(from.part[i], HalfPart);
      std::memcpy(to + i * sizeof(halves), &halves, sizeof(halves));
    } else if (bytes == 1) {
      const BytePart low = __builtin_convertvector(from.part[i], BytePart);
      std::memcpy(to + i * sizeof(low), &low, sizeof(low));
    }
  }
}

// Two vectors change lanes: of 2 x 2 blocks of `apart` lanes, first(a, b) is the left column and
// second(a, b) the right one.
template <int apart, int... lane>
[[gnu::always_inline]] inline FloatPart first(FloatPart a, FloatPart b,
                                              std::integer_sequence<int, lane...>) {
  return __builtin_shufflevector(a, b, ((lane & apart) == 0 ? lane : kWidth + lane - apart)...);
}
template <int apart, int... lane>
[[gnu::always_inline]] inline FloatPart second(FloatPart a, FloatPart b,
                                               std::integer_sequence<int, lane...>) {
  return __builtin_shufflevector(a, b, ((lane & apart) == 0 ? lane + apart : kWidth + lane)...);
}
using AllLanes = std::make_integer_sequence<int, kWidth>;

template <int apart = 1>
[[gnu::always_inline]] inline void transpose(FloatPart (&rows)[kWidth]) {
  if constexpr (apart < kWidth) {
    for (int i = 0; i < kWidth; ++i) {
      if ((i & apart) != 0) continue;
      const FloatPart a = rows[i], b = rows[i + apart];
      rows[i] = first<apart>(a, b, AllLanes{});
      rows[i + apart] = second<apart>(a, b, AllLanes{});
    }
    transpose<2 * apart>(rows);
  }
}

// Lane i of the result: the least (or most) lane of row i.
template <bool least, int apart = 1>
[[gnu::always_inline]] inline FloatPart reduce(FloatPart (&rows)[kWidth]) {
  if constexpr (apart < kWidth) {
    for (int i = 0; i < kWidth; i += 2 * apart) {
      const FloatPart a = first<apart>(rows[i], rows[i + apart], AllLanes{});
      const FloatPart b = second<apart>(rows[i], rows[i + apart], AllLanes{});
      rows[i] = least ? Machine::lesser(a, b) : Machine::greater(a, b);
    }
    return reduce<least, 2 * apart>(rows);
  } else {
    return rows[0];
  }
}

template <bool least>
[[gnu::always_inline]] inline Floats reduce_rows(const Floats (&rows)[kLanes]) {
  Floats all;
  for (int i = 0; i < kParts; ++i) {
    FloatPart folded[kWidth];
    for (int row = 0; row < kWidth; ++row) {
      const Floats& from = rows[i * kWidth + row];
      folded[row] = from.part[0];
      for (int j = 1; j < kParts; ++j)
        folded[row] = least ? Machine::lesser(folded[row], from.part[j])
                            : Machine::greater(folded[row], from.part[j]);
    }
    all.part[i] = reduce<least>(folded);
  }
  return all;
}

// One step of a Hadamard rotation among the lanes: (a + b, a - b) of lanes `apart` from each other.
template <int apart, int... lane>
[[gnu::always_inline]] inline FloatPart butterfly(FloatPart a,
                                                  std::integer_sequence<int, lane...>) {
  const FloatPart other = __builtin_shufflevector(a, a, (lane ^ apart)...);
  const FloatPart sign = {((lane & apart) == 0 ? 1.0f : -1.0f)...};
  return other + a * sign;
}
template <int apart>
[[gnu::always_inline]] inline Floats butterflies(const Floats& a) {
  Floats all;
  if constexpr (apart < kWidth) {
    for (int i = 0; i < kParts; ++i) all.part[i] = butterfly<apart>(a.part[i], AllLanes{});
  } else {
    constexpr int step = apart / kWidth;
    for (int i = 0; i < kParts; ++i)
      all.part[i] = (i & step) == 0 ? a.part[i] + a.part[i ^ step] : a.part[i ^ step] - a.part[i];
  }
  return all;
}

template <int... lane>
[[gnu::always_inline]] inline LongPart checksum_steps(std::integer_sequence<int, lane...>) {
  return LongPart{(lane * kChecksumStep)...};
}

// Terms of the checksum (checksum.hpp), a 64-bit word a lane.
struct Sums {
  LongPart part[kParts] = {};

  [[gnu::always_inline]] void add(const Words& line, std::uint64_t first_word) {
    const LongPart steps = checksum_steps(std::make_integer_sequence<int, kWidth / 2>{});
    for (int i = 0; i < kParts; ++i) {
      const std::uint64_t word = first_word + static_cast<std::uint64_t>(i * kWidth / 2) + 1;
      LongPart x = __builtin_bit_cast(LongPart, line.part[i]) + steps + word * kChecksumStep;
      x = (x ^ (x >> 30)) * kChecksumFactors[0];
      x = (x ^ (x >> 27)) * kChecksumFactors[1];
      part[i] += x ^ (x >> 31);
    }
  }
  std::uint64_t total() const {
    std::uint64_t sum = 0;
    for (const LongPart& each : part)
      for (int j = 0; j < kWidth / 2; ++j) sum += each[j];
    return sum;
  }
};

}  // namespace
}  // namespace modalkv
