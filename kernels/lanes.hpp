// Vectors of 32-bit lanes, as wide as the target has them. A line of a page (page_layout.hpp) is
// sixteen lanes, in kParts vectors. Each target includes this file behind its own target pragma and
// its `Machine`, so everything here has internal linkage and nothing of one target can reach
// another.
//
// Machine::kWidth      lanes of a vector: 4, 8 or 16
// Machine::Floats      such a vector; Words: of unsigned integers
// Machine::lesser      a < b ? a : b, lane by lane; greater: a > b ? a : b
// Machine::add_poison  poison, or NaN in the lanes where the value is not finite
// Machine::from_fp16   kWidth FP16 numbers in memory, exact; to_fp16: rounded as kernels/number.hpp
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <utility>

namespace modalkv {
namespace {

constexpr int kWidth = Machine::kWidth, kParts = kLineRows / kWidth;

using Floats = Machine::Floats;
using Words = Machine::Words;
using Halves [[gnu::vector_size(2 * kWidth)]] = std::uint16_t;
using Octets [[gnu::vector_size(kWidth)]] = std::uint8_t;
using Longs [[gnu::vector_size(4 * kWidth)]] = std::uint64_t;
using Signed [[gnu::vector_size(4 * kWidth)]] = std::int32_t;

template <typename Vector>
[[gnu::always_inline]] inline Vector load(const void* from) {
  Vector vector;
  std::memcpy(&vector, from, sizeof(vector));
  return vector;
}
template <typename Vector>
[[gnu::always_inline]] inline void store(void* to, Vector vector) {
  std::memcpy(to, &vector, sizeof(vector));
}
[[gnu::always_inline]] inline Floats broadcast(float value) {
  return value - Floats{};
}
[[gnu::always_inline]] inline Words broadcast(std::uint32_t value) {
  return value - Words{};
}
[[gnu::always_inline]] inline Words bits_of(Floats a) {
  return __builtin_bit_cast(Words, a);
}
[[gnu::always_inline]] inline Floats floats_of(Words a) {
  return __builtin_bit_cast(Floats, a);
}

// All bits of a lane where a < b, else none; of words below 2^31.
[[gnu::always_inline]] inline Words is_less(Floats a, Floats b) {
  return __builtin_bit_cast(Words, a < b);
}
[[gnu::always_inline]] inline Words is_less(Words a, Words b) {
  return __builtin_bit_cast(Words, __builtin_bit_cast(Signed, a) < __builtin_bit_cast(Signed, b));
}
[[gnu::always_inline]] inline Words select(Words mask, Words a, Words b) {
  return (a & mask) | (b & ~mask);
}
[[gnu::always_inline]] inline Floats select(Words mask, Floats a, Floats b) {
  return floats_of(select(mask, bits_of(a), bits_of(b)));
}
[[gnu::always_inline]] inline Words lesser(Words a, Words b) {
  return select(is_less(a, b), a, b);
}
[[gnu::always_inline]] inline Floats absolute(Floats a) {
  return floats_of(bits_of(a) & 0x7fffffffu);
}
inline bool any(Words a) {
  const Longs longs = __builtin_bit_cast(Longs, a);
  std::uint64_t bits = 0;
  for (int i = 0; i < kWidth / 2; ++i) bits |= longs[i];
  return bits != 0;
}

[[gnu::always_inline]] inline Words to_bf16(Floats a) {
  const Words bits = bits_of(a);
  return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

// Where elements come from: 16-bit numbers, or floats that were made of them.
struct Fp16Input {
  [[gnu::always_inline]] static Floats load(const float* from) {
    return modalkv::load<Floats>(from);
  }
  [[gnu::always_inline]] static Floats load(const std::uint16_t* from) {
    return Machine::from_fp16(from);
  }
};
struct Bf16Input {
  [[gnu::always_inline]] static Floats load(const float* from) {
    return modalkv::load<Floats>(from);
  }
  [[gnu::always_inline]] static Floats load(const std::uint16_t* from) {
    return floats_of(__builtin_convertvector(modalkv::load<Halves>(from), Words) << 16);
  }
};

// The low `bytes` (0 to 2) of each lane, one after another.
[[gnu::always_inline]] inline void store_low(std::byte* to, Words from, int bytes) {
  if (bytes == 2) store(to, __builtin_convertvector(from, Halves));
  if (bytes == 1) store(to, __builtin_convertvector(from, Octets));
}

// Two vectors change lanes: of 2 x 2 blocks of `apart` lanes, first(a, b) is the left column and
// second(a, b) the right one.
template <int apart, int... lane>
[[gnu::always_inline]] inline Floats first(Floats a, Floats b,
                                           std::integer_sequence<int, lane...>) {
  return __builtin_shufflevector(a, b, ((lane & apart) == 0 ? lane : kWidth + lane - apart)...);
}
template <int apart, int... lane>
[[gnu::always_inline]] inline Floats second(Floats a, Floats b,
                                            std::integer_sequence<int, lane...>) {
  return __builtin_shufflevector(a, b, ((lane & apart) == 0 ? lane + apart : kWidth + lane)...);
}
using AllLanes = std::make_integer_sequence<int, kWidth>;

template <int apart = 1>
[[gnu::always_inline]] inline void transpose(Floats (&rows)[kWidth]) {
  if constexpr (apart < kWidth) {
    for (int i = 0; i < kWidth; ++i) {
      if ((i & apart) != 0) continue;
      const Floats a = rows[i], b = rows[i + apart];
      rows[i] = first<apart>(a, b, AllLanes{});
      rows[i + apart] = second<apart>(a, b, AllLanes{});
    }
    transpose<2 * apart>(rows);
  }
}

struct Lesser {
  [[gnu::always_inline]] static Floats of(Floats a, Floats b) { return Machine::lesser(a, b); }
};
struct Greater {
  [[gnu::always_inline]] static Floats of(Floats a, Floats b) { return Machine::greater(a, b); }
};

// Lane i of the result: the least (or most) lane of row i. Overwrites the rows.
template <typename Choice, int apart = 1>
[[gnu::always_inline]] inline Floats reduce(Floats* rows) {
  if constexpr (apart < kWidth) {
    for (int i = 0; i < kWidth; i += 2 * apart) {
      const Floats a = first<apart>(rows[i], rows[i + apart], AllLanes{});
      const Floats b = second<apart>(rows[i], rows[i + apart], AllLanes{});
      rows[i] = Choice::of(a, b);
    }
    return reduce<Choice, 2 * apart>(rows);
  } else {
    return rows[0];
  }
}

// The least (or most) of some vectors, lane by lane.
template <typename Choice, int count = kWidth>
[[gnu::always_inline]] inline Floats fold(const Floats* rows) {
  if constexpr (count == 1) {
    return rows[0];
  } else {
    return Choice::of(fold<Choice, count / 2>(rows), fold<Choice, count / 2>(rows + count / 2));
  }
}

// One step of a Hadamard rotation among the lanes: (a + b, a - b) of lanes `apart` from each other.
template <int apart, int... lane>
[[gnu::always_inline]] inline Floats butterfly(Floats a, std::integer_sequence<int, lane...>) {
  const Floats other = __builtin_shufflevector(a, a, (lane ^ apart)...);
  const Floats sign = {((lane & apart) == 0 ? 1.0f : -1.0f)...};
  return other + a * sign;
}
// All such steps of a vector.
template <int apart = 1>
[[gnu::always_inline]] inline Floats butterflies(Floats a) {
  if constexpr (apart < kWidth) {
    return butterflies<2 * apart>(butterfly<apart>(a, AllLanes{}));
  } else {
    return a;
  }
}

template <int... lane>
[[gnu::always_inline]] inline Longs checksum_steps(std::integer_sequence<int, lane...>) {
  return Longs{(lane * kChecksumStep)...};
}

// Terms of the checksum (checksum.hpp), a 64-bit word a lane.
class Sums {
 public:
  // Written out: GCC compiles implicit constructors for no target in particular.
  Sums() : lanes_{} {}

  [[gnu::always_inline]] void add(Words words, Bytes at) {
    const auto position = (static_cast<std::uint64_t>(at) / 8 + 1) * kChecksumStep;
    Longs x = __builtin_bit_cast(Longs, words) +
              checksum_steps(std::make_integer_sequence<int, kWidth / 2>{}) + position;
    x = (x ^ (x >> 30)) * kChecksumFactors[0];
    x = (x ^ (x >> 27)) * kChecksumFactors[1];
    lanes_ += x ^ (x >> 31);
  }
  // Whole lines of bytes that lie `at` in what is summed.
  void add(const std::byte* bytes, Bytes at, Bytes count) {
    for (Bytes i = 0; i < count; i += 4 * kWidth) add(load<Words>(bytes + i), at + i);
  }
  std::uint64_t total() const {
    std::uint64_t sum = 0;
    for (int i = 0; i < kWidth / 2; ++i) sum += lanes_[i];
    return sum;
  }

 private:
  Longs lanes_;
};

}  // namespace
}  // namespace modalkv
