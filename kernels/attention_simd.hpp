// Attention of query rows over a list of pages with vectors of 16 lanes: included by one file a
// target, in its namespace and under its target pragma, after a vocabulary (simd_avx512.hpp).
//
// Lanes are the 16 rows of a line (page_layout.hpp), so dots are summed down and never across, and
// the other operand is a broadcast. Codes of integer formats and of E2M1 stay integers: queries and
// weights are rounded to 15 bits of their largest, products are summed exactly in 32 bits, and the
// codes' scales come in at the end of a group. 16-bit and E4M3 numbers are multiplied in binary32.
//
// Pages are walked from first to last, all KV heads of a page within each step, so that memory is
// read in the order in which it lies.
#pragma once

constexpr int kTiles = 4;  // tiles of 16 tokens between two looks at the maximum
constexpr int kBlockTokens = kTiles * kLineRows;
constexpr int kPassRows = 64;                 // query rows that are held while pages go by
constexpr int kMaxGroups = kMaxHeadDim / 16;  // of a vector
constexpr Bytes kPrefetchBytes = 16384;
constexpr float kNever = -std::numeric_limits<float>::infinity();
// 256 products with 8-bit codes stay below 2^31.
constexpr float kMostUnits = 32767;

// function(0), function(1) ... as constants.
template <int count, typename Function>
[[gnu::always_inline]] inline void unrolled(Function function) {
  [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) {
    (function(std::integral_constant<int, i>{}), ...);
  }
  (std::make_integer_sequence<int, count>{});
}

inline Floats exponential(Floats x) {
  x = larger(x, broadcast(-87.0f));
  const Floats scaled = x * broadcast(1.44269504f);
  const Floats whole = nearest(scaled);
  const Floats part = scaled - whole;  // 2^part by its series, within 2e-7
  Floats power = broadcast(1.5403530e-4f);
  for (const float term :
       {1.3333558e-3f, 9.6181291e-3f, 5.5504109e-2f, 2.4022651e-1f, 6.9314718e-1f, 1.0f})
    power = multiply_add(power, part, broadcast(term));
  return times_power_of_two(power, whole);
}

// K or V of one head in the pages of a list.
struct Side {
  Side(const PageList& list, bool values, int head)
      : format(values ? list.shape.format.value : list.shape.format.key),
        kind(quantization(format)),
        tensor_scale(values ? list.scales.value : list.scales.key),
        dims(list.shape.head_dim),
        page_tokens(list.shape.tokens),
        group(static_cast<int>(group_elements(format, list.shape))),
        groups(divide_up(dims, group)) {
    const PageLayout layout(list.shape);
    lines = values ? layout.value_lines(head) : layout.key_lines(head);
    metadata = values ? layout.value_metadata(head) : layout.key_metadata(head);
  }

  Bytes pair() const { return format.scale_bytes + format.zero_bytes; }

  ElementFormat format;
  Quantization kind;
  float tensor_scale;
  int dims;
  Tokens page_tokens;
  int group;  // elements
  std::int64_t groups;
  Bytes lines, metadata;  // from the begin of a page
};

// Up to kTiles tiles of a list.
struct Block {
  Tokens begin;
  int tiles;
  std::array<const std::byte*, kTiles> pages;
  std::array<Tokens, kTiles> in_page;  // the first token of each tile
};

// Of 16 tokens or of 16 channels: value = code * scale + zero.
struct Affine {
  Floats scale, zero;
};

inline Affine load_affine(const Side& side, const std::byte* scales, const std::byte* zero_points) {
  const NumberFormat number = side.format.number;
  Floats scale = broadcast(side.tensor_scale);
  if (side.format.scale_bytes == 2) scale = load_fp16(scales);
  if (side.format.scale_bytes == 1)
    scale = number == NumberFormat::mxfp4 ? load_e8m0(scales) : load_e4m3(scales);
  if (payload_bits(number) == 4 && side.kind == Quantization::floating)
    scale = scale * broadcast(0.5f);  // of doubled numbers
  switch (side.kind) {
    case Quantization::affine:
      return {scale, load_fp16(zero_points)};
    case Quantization::affine_integer:
      return {scale, zeros() - load_int8(zero_points) * scale};
    case Quantization::symmetric:
      return {scale, scale * broadcast(-static_cast<float>(1 << (payload_bits(number) - 1)))};
    default:
      return {scale, zeros()};
  }
}

// A query row.
struct alignas(64) Row {
  alignas(64) std::array<float, kMaxHeadDim> query;
  alignas(64) std::array<float, kMaxHeadDim> factors;       // operand for keys that are floats
  alignas(64) std::array<std::int16_t, kMaxHeadDim> units;  // operand for keys that are integers
  std::array<float, kMaxGroups> group_sums;                 // of the query, as the operand has it
  float unit;                                               // of `units`
  float fixed;              // what the zeros of channels add to each logit
  const std::byte* folded;  // the scales of channels that the operand has been multiplied with
  float* output;
  float* maximum;
  float* sum;
  bool bounded;
  std::int32_t first, last;  // positions that it sees, where bounded
};

// The tokens of a block for a row: logits, then exponentials.
struct alignas(64) Weights {
  alignas(64) std::array<float, kBlockTokens> weights;
  alignas(64) std::array<float, kBlockTokens> factors;       // operand for values that are floats
  alignas(64) std::array<std::int16_t, kBlockTokens> units;  // and for those that are integers
  std::array<std::uint32_t, kTiles> visible;
  float unit;
  float fixed;  // what the zeros of tokens add to each channel
};

// The largest becomes kMostUnits. Returns the unit.
inline float store_units(std::int16_t* to, const float* from, int count) {
  Floats most = zeros();
  for (int i = 0; i < count; i += kLineRows) most = larger(most, magnitude(load(from + i)));
  const float highest = largest(most);
  const Floats inverse = broadcast(highest > 0 ? kMostUnits / highest : 0);
  for (int i = 0; i < count; i += kLineRows) store_rounded(to + i, load(from + i) * inverse);
  return highest / kMostUnits;
}

// Sums of products of integer codes with an operand a row, exact.
template <int bits, bool e2m1, int rows>
class IntegerDots {
 public:
  using Operand = std::int16_t;
  static constexpr int kDepth = 32 / bits;

  IntegerDots() {
    unrolled<rows>([&](auto r) __attribute__((always_inline)) {
      unrolled<kChains>([&](auto c) __attribute__((always_inline)) { sums_[r][c] = zero_words(); });
    });
  }

  /// `stride`: from the operand of a row to the next one's.
  template <std::size_t stride>
  [[gnu::always_inline]] void add(const std::byte* line, int lines, const Operand* units) {
    for (int l = 0; l < lines; l += kStep, line += kStep * kLineBytes, units += kStep * kDepth)
      unrolled<kStep>([&](auto i) __attribute__((always_inline)) {
        const Words words = load_line(line + i * kLineBytes);
        prefetch(line + i * kLineBytes + kPrefetchBytes);
        unrolled<kPairs>([&](auto p) __attribute__((always_inline)) {
          const Words pairs = [&] {
            if constexpr (e2m1) {
              return e2m1_pairs<p>(words);
            } else {
              return integer_pairs<bits, p>(words);
            }
          }();
          constexpr int chain = (i * kPairs + p) % kChains;
          unrolled<rows>([&](auto r) __attribute__((always_inline)) {
            sums_[r][chain] =
                add_products(sums_[r][chain], pairs, units + r * stride + i * kDepth + 2 * p);
          });
        });
      });
  }

  Floats result(int row) const {
    Words total = sums_[row][0];
    for (int c = 1; c < kChains; ++c) total = total + sums_[row][c];
    return to_floats(total);
  }

 private:
  static constexpr int kPairs = kDepth / 2;
  // Where rows are few, additions that wait for each other would be the limit.
  static constexpr int kChains = kRowsAtOnce < 8 ? 1 : rows <= 2 ? 4 : 2;
  static constexpr int kStep = kPairs < kChains ? kChains / kPairs : 1;

  Words sums_[rows][kChains];
};

// The same of 16-bit and of E4M3 numbers, in binary32.
template <typename Pairs, int bits, int rows>
class FloatDots {
 public:
  using Operand = float;
  static constexpr int kDepth = 32 / bits;

  FloatDots() {
    unrolled<rows>([&](auto r) __attribute__((always_inline)) { a_[r] = b_[r] = zeros(); });
  }

  template <std::size_t stride>
  [[gnu::always_inline]] void add(const std::byte* line, int lines, const Operand* factors) {
    for (int l = 0; l < lines; ++l, line += kLineBytes, factors += kDepth) {
      const Words words = load_line(line);
      prefetch(line + kPrefetchBytes);
      unrolled<kDepth / 2>([&](auto p) __attribute__((always_inline)) {
        const FloatPairs pairs = [&] {
          if constexpr (bits == 8) {
            return Pairs::of(e4m3_as_fp16<p>(words));
          } else {
            return Pairs::of(words);
          }
        }();
        unrolled<rows>([&](auto r) __attribute__((always_inline)) {
          const FloatPairs factor = Pairs::factors(factors + r * stride + 2 * p);
          a_[r] = multiply_add(pairs.a, factor.a, a_[r]);
          b_[r] = multiply_add(pairs.b, factor.b, b_[r]);
        });
      });
    }
  }

  Floats result(int row) const {
    const Floats total = Pairs::rows(a_[row], b_[row]);
    return bits == 8 ? total * broadcast(256) : total;
  }

 private:
  Floats a_[rows], b_[rows];
};

// What a number format is to these kernels.
template <int bits_, bool e2m1>
struct IntegerCodes {
  static constexpr bool kIntegers = true, kScaled = true;
  template <int rows>
  using Dots = IntegerDots<bits_, e2m1, rows>;
};
template <typename Pairs, int bits_>
struct FloatCodes {
  static constexpr bool kIntegers = false, kScaled = bits_ == 8;
  template <int rows>
  using Dots = FloatDots<Pairs, bits_, rows>;
};

// The query times the scales of channels, for the tokens that share them.
template <typename Codes>
void fold_scales(const Side& side, const std::byte* metadata, Row& row) {
  if (row.folded == metadata) return;
  row.folded = metadata;
  const std::byte* zero_points = metadata + Bytes{side.dims} * side.format.scale_bytes;
  Floats fixed = zeros();
  for (int d = 0; d < side.dims; d += kLineRows) {
    const Affine affine = load_affine(side, metadata + Bytes{d} * side.format.scale_bytes,
                                      zero_points + Bytes{d} * side.format.zero_bytes);
    const Floats query = load(&row.query[static_cast<std::size_t>(d)]);
    store(&row.factors[static_cast<std::size_t>(d)], query * affine.scale);
    fixed = multiply_add(query, affine.zero, fixed);
  }
  row.fixed = sum(fixed);
  if constexpr (Codes::kIntegers)
    row.unit = store_units(row.units.data(), row.factors.data(), side.dims);
}

template <typename Codes>
const auto* operand(const Row& row) {
  if constexpr (Codes::kIntegers) {
    return row.units.data();
  } else {
    return row.factors.data();
  }
}

// Logits of the tokens of a block for `rows` rows.
template <typename Codes, int rows>
void add_logits(const Side& side, const Block& block, Row* row, Weights* weights) {
  using Dots = typename Codes::template Dots<rows>;
  constexpr std::size_t stride = sizeof(Row) / sizeof(typename Dots::Operand);
  const Bytes tile_lines = side.dims / Dots::kDepth;
  for (int tile = 0; tile < block.tiles; ++tile) {
    const std::byte* page = block.pages[static_cast<std::size_t>(tile)];
    const Tokens token = block.in_page[static_cast<std::size_t>(tile)];
    const std::byte* line = page + side.lines + token / kLineRows * tile_lines * kLineBytes;
    const std::byte* metadata = page + side.metadata;
    Floats logits[rows];
    if (side.format.per_channel) {
      metadata += token / side.group * side.dims * side.pair();
      for (int r = 0; r < rows; ++r) fold_scales<Codes>(side, metadata, row[r]);
      Dots dots;
      dots.template add<stride>(line, static_cast<int>(tile_lines), operand<Codes>(row[0]));
      for (int r = 0; r < rows; ++r)
        logits[r] = multiply_add(dots.result(r), broadcast(row[r].unit), broadcast(row[r].fixed));
    } else {
      metadata += token * side.groups * side.pair();
      for (int r = 0; r < rows; ++r) logits[r] = zeros();
      std::size_t group = 0;
      for (int first = 0; first < side.dims; first += side.group, ++group) {
        const int lines = std::min(side.group, side.dims - first) / Dots::kDepth;
        Dots dots;
        dots.template add<stride>(line, lines, operand<Codes>(row[0]) + first);
        line += lines * kLineBytes;
        if constexpr (Codes::kScaled) {
          const Affine affine =
              load_affine(side, metadata, metadata + kLineRows * side.format.scale_bytes);
          metadata += kLineRows * side.pair();
          for (int r = 0; r < rows; ++r) {
            logits[r] =
                multiply_add(dots.result(r) * broadcast(row[r].unit), affine.scale, logits[r]);
            logits[r] = multiply_add(affine.zero, broadcast(row[r].group_sums[group]), logits[r]);
          }
        } else {
          for (int r = 0; r < rows; ++r) logits[r] = dots.result(r);
        }
      }
    }
    for (int r = 0; r < rows; ++r)
      store(&weights[r].weights[static_cast<std::size_t>(tile * kLineRows)], logits[r]);
  }
}

// Logits become exponentials against the row's maximum, which may grow.
inline void weigh(const Block& block, int dims, Row& row, Weights& weights) {
  const auto at = [&](int tile) {
    return &weights.weights[static_cast<std::size_t>(tile * kLineRows)];
  };
  Floats logits[kTiles];
  Floats highest = broadcast(kNever);
  for (int tile = 0; tile < kTiles; ++tile) {
    logits[tile] = broadcast(kNever);
    if (tile < block.tiles)
      logits[tile] =
          select(weights.visible[static_cast<std::size_t>(tile)], load(at(tile)), logits[tile]);
    highest = larger(highest, logits[tile]);
  }
  const float most = largest(highest);
  if (most == kNever) {
    weights.weights = {};
    return;
  }
  if (most > *row.maximum) {
    const float shrink = std::exp(*row.maximum - most);  // 0 where there was nothing
    *row.maximum = most;
    *row.sum *= shrink;
    for (int d = 0; d < dims; d += kLineRows)
      store(row.output + d, load(row.output + d) * broadcast(shrink));
  }
  Floats total = zeros();
  for (int tile = 0; tile < kTiles; ++tile) {
    const std::uint32_t visible =
        tile < block.tiles ? weights.visible[static_cast<std::size_t>(tile)] : 0;
    const Floats weight =
        select(visible, exponential(logits[tile] - broadcast(*row.maximum)), zeros());
    total = total + weight;
    store(at(tile), weight);
  }
  *row.sum += sum(total);
}

// The operand for values: weights, with the tokens' scales where they have some.
template <typename Codes>
void make_operand(const Affine* affine, int tiles, Weights& weights) {
  if constexpr (Codes::kScaled) {
    if (affine != nullptr) {
      Floats fixed = zeros();
      for (int tile = 0; tile < tiles; ++tile) {
        const auto at = static_cast<std::size_t>(tile * kLineRows);
        const Floats weight = load(&weights.weights[at]);
        store(&weights.factors[at], weight * affine[tile].scale);
        fixed = multiply_add(weight, affine[tile].zero, fixed);
      }
      weights.fixed = sum(fixed);
    } else {
      weights.factors = weights.weights;
    }
  }
  if constexpr (Codes::kIntegers)
    weights.unit = store_units(weights.units.data(), weights.factors.data(), tiles * kLineRows);
}

template <typename Codes>
const auto* operand(const Weights& weights) {
  if constexpr (Codes::kIntegers) {
    return weights.units.data();
  } else if constexpr (Codes::kScaled) {
    return weights.factors.data();
  } else {
    return weights.weights.data();
  }
}

// Weighted values of the tokens of a block.
template <typename Codes, int rows>
void add_values(const Side& side, const Block& block, Row* row, Weights* weights) {
  using Dots = typename Codes::template Dots<rows>;
  constexpr std::size_t stride = sizeof(Weights) / sizeof(typename Dots::Operand);
  const Bytes block_step = side.page_tokens / Dots::kDepth * kLineBytes;
  const std::byte* lines[kTiles];
  const std::byte* metadata[kTiles];
  for (int tile = 0; tile < block.tiles; ++tile) {
    const std::byte* page = block.pages[static_cast<std::size_t>(tile)];
    const Tokens token = block.in_page[static_cast<std::size_t>(tile)];
    lines[tile] = page + side.lines + token / Dots::kDepth * kLineBytes;
    metadata[tile] = page + side.metadata +
                     (side.format.per_channel ? token / side.group * side.dims * side.pair()
                                              : token * side.groups * side.pair());
  }
  const auto add_tiles = [&](Dots & dots, int dim, int first, int end)
      __attribute__((always_inline)) {
    for (int tile = first; tile < end; ++tile)
      dots.template add<stride>(lines[tile] + dim / kLineRows * block_step,
                                kLineRows / Dots::kDepth,
                                operand<Codes>(weights[0]) + tile * kLineRows);
  };
  if (side.format.per_channel) {
    for (int r = 0; r < rows; ++r) make_operand<Codes>(nullptr, block.tiles, weights[r]);
    for (int first = 0, end = 0; first < block.tiles; first = end) {
      while (end < block.tiles && metadata[end] == metadata[first]) ++end;
      float sums[rows];
      for (int r = 0; r < rows; ++r) {
        Floats total = zeros();
        for (int tile = first; tile < end; ++tile)
          total = total + load(&weights[r].weights[static_cast<std::size_t>(tile * kLineRows)]);
        sums[r] = sum(total);
      }
      const std::byte* zero_points = metadata[first] + Bytes{side.dims} * side.format.scale_bytes;
      for (int dim = 0; dim < side.dims; dim += kLineRows) {
        Dots dots;
        add_tiles(dots, dim, first, end);
        const Affine affine =
            load_affine(side, metadata[first] + Bytes{dim} * side.format.scale_bytes,
                        zero_points + Bytes{dim} * side.format.zero_bytes);
        for (int r = 0; r < rows; ++r) {
          const float unit = Codes::kIntegers ? weights[r].unit : 1;
          Floats output = load(row[r].output + dim);
          output = multiply_add(dots.result(r) * broadcast(unit), affine.scale, output);
          store(row[r].output + dim, multiply_add(affine.zero, broadcast(sums[r]), output));
        }
      }
    }
    return;
  }
  for (int first = 0; first < side.dims; first += side.group) {
    if constexpr (Codes::kScaled) {
      Affine affine[kTiles];
      for (int tile = 0; tile < block.tiles; ++tile, metadata[tile - 1] += kLineRows * side.pair())
        affine[tile] =
            load_affine(side, metadata[tile], metadata[tile] + kLineRows * side.format.scale_bytes);
      for (int r = 0; r < rows; ++r) make_operand<Codes>(affine, block.tiles, weights[r]);
    }
    const int end = std::min(side.dims, first + side.group);
    for (int dim = first; dim < end; dim += kLineRows) {
      Dots dots;
      add_tiles(dots, dim, 0, block.tiles);
      for (int r = 0; r < rows; ++r) {
        const Floats output = load(row[r].output + dim);
        if constexpr (Codes::kScaled) {
          const float unit = Codes::kIntegers ? weights[r].unit : 1;
          store(row[r].output + dim, multiply_add(dots.result(r), broadcast(unit),
                                                  output + broadcast(weights[r].fixed)));
        } else {
          store(row[r].output + dim, output + dots.result(r));
        }
      }
    }
  }
}

using Phase = void (*)(const Side&, const Block&, Row*, Weights*);

struct Phases {
  Phase logits, values;
};

template <typename Codes>
Phases phases_of(int rows) {
  constexpr auto all = []<int... i>(std::integer_sequence<int, i...>) {
    return std::array{Phases{add_logits<Codes, i + 1>, add_values<Codes, i + 1>}...};
  }
  (std::make_integer_sequence<int, kRowsAtOnce>{});
  return all[static_cast<std::size_t>(rows - 1)];
}

inline Phases phases_of(NumberFormat number, int rows) {
  switch (number) {
    case NumberFormat::fp16:
      return phases_of<FloatCodes<Fp16Pairs, 16>>(rows);
    case NumberFormat::bf16:
      return phases_of<FloatCodes<Bf16Pairs, 16>>(rows);
    case NumberFormat::fp8_e4m3:
      return phases_of<FloatCodes<Fp16Pairs, 8>>(rows);
    case NumberFormat::int8:
      return phases_of<IntegerCodes<8, false>>(rows);
    case NumberFormat::int4:
      return phases_of<IntegerCodes<4, false>>(rows);
    case NumberFormat::int2:
      return phases_of<IntegerCodes<2, false>>(rows);
    case NumberFormat::nvfp4:
    case NumberFormat::mxfp4:
      break;
  }
  return phases_of<IntegerCodes<4, true>>(rows);
}

// Up to kPassRows query rows against all pages of a list.
class Pass {
 public:
  explicit Pass(const PageList& list) : list_(list) {}

  /// Rows [begin, end) of [tokens, heads of the group] of a KV head.
  void add_head(const Queries& queries, int kv_head, std::int64_t begin, std::int64_t end,
                std::span<float> partials) {
    Head& head = heads_[static_cast<std::size_t>(head_count_++)];
    head.kv_head = kv_head;
    head.first_row = row_count_;
    head.rows = static_cast<int>(end - begin);
    const int group = queries.heads / list_.shape.kv_heads;
    for (std::int64_t i = begin; i < end; ++i)
      prepare(rows_[static_cast<std::size_t>(row_count_++)], queries, i / group,
              kv_head * group + static_cast<int>(i % group), partials);
  }

  void run() const {
    const PageShape& shape = list_.shape;
    for (Tokens begin = 0; begin < list_.tokens; begin += kBlockTokens) {
      Block block{begin, 0, {}, {}};
      for (Tokens token = begin; token < std::min(list_.tokens, begin + kBlockTokens);
           token += kLineRows, ++block.tiles) {
        const auto tile = static_cast<std::size_t>(block.tiles);
        block.pages[tile] = list_.pages[static_cast<std::size_t>(token / shape.tokens)];
        block.in_page[tile] = token % shape.tokens;
      }
      for (int h = 0; h < head_count_; ++h) add_block(block, heads_[static_cast<std::size_t>(h)]);
    }
  }

 private:
  struct Head {
    int kv_head, first_row, rows;
  };

  void prepare(Row& row, const Queries& queries, Tokens token, int head,
               std::span<float> partials) const {
    const int dims = list_.shape.head_dim;
    const std::uint16_t* from =
        queries.elements + token * queries.token_stride + head * queries.head_stride;
    for (int d = 0; d < dims; ++d)
      row.query[static_cast<std::size_t>(d)] =
          queries.scale *
          (queries.number == NumberFormat::bf16 ? from_bf16(from[d]) : from_fp16(from[d]));
    const PartialRow partial = partial_row(partials, token * queries.heads + head, dims);
    row.output = partial.output.data();
    row.maximum = partial.maximum;
    row.sum = partial.sum;
    row.bounded = !queries.positions.empty();
    if (row.bounded) {
      constexpr std::int64_t lowest = std::numeric_limits<std::int32_t>::min();
      row.last = queries.positions[static_cast<std::size_t>(token)];
      row.first = static_cast<std::int32_t>(
          queries.window > 0 ? std::max(lowest, std::int64_t{row.last} - queries.window + 1)
                             : lowest);
    }
    row.folded = nullptr;
    row.fixed = 0;
    row.unit = 1;
    row.factors = row.query;
    const ElementFormat& format = list_.shape.format.key;
    if (format.per_channel || quantization(format) == Quantization::none ||
        format.number == NumberFormat::fp8_e4m3) {
      row.group_sums = {};
      return;
    }
    row.unit = store_units(row.units.data(), row.query.data(), dims);
    const auto group = static_cast<int>(group_elements(format, list_.shape));
    for (int first = 0; first < dims; first += group) {
      std::int32_t units = 0;
      for (int d = first; d < std::min(dims, first + group); ++d)
        units += row.units[static_cast<std::size_t>(d)];
      row.group_sums[static_cast<std::size_t>(first / group)] =
          static_cast<float>(units) * row.unit;
    }
  }

  // Tokens of a tile that the row sees, a bit each.
  std::uint32_t visible(const Row& row, Tokens token) const {
    const Tokens left = std::min<Tokens>(kLineRows, list_.tokens - token);
    std::uint32_t mask = (std::uint32_t{1} << left) - 1;
    if (!list_.hidden.empty())
      mask &= ~static_cast<std::uint32_t>(list_.hidden[static_cast<std::size_t>(token / 64)] >>
                                          token % 64);
    return row.bounded ? within(mask, list_.positions.data() + token, row.first, row.last) : mask;
  }

  void add_block(const Block& block, const Head& head) const {
    const Side keys(list_, false, head.kv_head), values(list_, true, head.kv_head);
    for (int begin = 0; begin < head.rows; begin += kRowsAtOnce) {
      const int count = std::min(kRowsAtOnce, head.rows - begin);
      Row* rows = &rows_[static_cast<std::size_t>(head.first_row + begin)];
      std::array<Weights, kRowsAtOnce> weights;
      std::uint32_t seen = 0;
      for (int r = 0; r < count; ++r)
        for (int tile = 0; tile < block.tiles; ++tile)
          seen |= weights[static_cast<std::size_t>(r)].visible[static_cast<std::size_t>(tile)] =
              visible(rows[r], block.begin + tile * kLineRows);
      if (seen == 0) continue;
      phases_of(keys.format.number, count).logits(keys, block, rows, weights.data());
      for (int r = 0; r < count; ++r)
        weigh(block, keys.dims, rows[r], weights[static_cast<std::size_t>(r)]);
      phases_of(values.format.number, count).values(values, block, rows, weights.data());
    }
  }

  const PageList& list_;
  mutable std::array<Row, kPassRows> rows_;
  int row_count_ = 0;
  std::array<Head, kPassRows> heads_;
  int head_count_ = 0;
};

inline void attend_with_vectors(const Queries& queries, const PageList& list, int first_kv_head,
                                int end_kv_head, std::span<float> partials) {
  const std::int64_t head_rows = queries.tokens * (queries.heads / list.shape.kv_heads);
  const int heads = static_cast<int>(std::max<std::int64_t>(1, kPassRows / head_rows));
  for (int first = first_kv_head; first < end_kv_head; first += heads)
    for (std::int64_t row = 0; row < head_rows; row += kPassRows) {
      Pass pass(list);
      for (int head = first; head < std::min(end_kv_head, first + heads); ++head)
        pass.add_head(queries, head, row, std::min(head_rows, row + kPassRows), partials);
      pass.run();
    }
}
