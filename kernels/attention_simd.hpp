// Attention of query rows over a list of pages with vectors of 16 lanes: included by one file a
// target, in its namespace and under its target pragma, after a vocabulary (simd_avx512.hpp,
// simd_avx2.hpp).
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
constexpr Bytes kIdleBytes = 1024;            // fetched while logits become weights
constexpr Bytes kPrefetchBytes = 8192;        // ahead: what memory delivers while it answers
constexpr float kNever = -std::numeric_limits<float>::infinity();

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
  Side() = default;
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
  /// From the begin of a page, of a token that begins a tile.
  Bytes metadata_of(Tokens token) const {
    return metadata + (format.per_channel ? token / group * dims : token * groups) * pair();
  }

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
  std::array<Tokens, kTiles> in_page;        // the first token of each tile
  std::array<std::ptrdiff_t, kTiles> ahead;  // from each line to the one to be fetched meanwhile
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
  if (payload_bits(number) == 4 && side.kind == Quantization::floating) {
    scale = scale * broadcast(0.5f);  // codes are the double plus 12
    return {scale, scale * broadcast(-12)};
  }
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
  alignas(64) std::array<float, kMaxHeadDim> query;          // rotated as the keys are
  alignas(64) std::array<float, kMaxHeadDim> factors;        // operand for keys that are floats
  alignas(64) std::array<std::byte, 2 * kMaxHeadDim> terms;  // operand for keys that are integers
  std::array<float, kMaxGroups> group_sums;                  // of the query, as the operand has it
  float unit;                                                // of `terms`
  float fixed;              // what the zeros of channels add to each logit
  const std::byte* folded;  // the scales of channels that the operand has been multiplied with
  float* output;
  float* maximum;
  float* sum;
  bool bounded;
  SeenPositions seen_positions;                                 // where bounded
  std::array<float, kMaxHeadDim / 2> cosine_terms, sine_terms;  // of a known bias
};

// The tokens of a block for a row: logits, then exponentials.
struct alignas(64) Weights {
  alignas(64) std::array<float, kBlockTokens> weights;
  alignas(64) std::array<float, kBlockTokens> factors;        // operand for values that are floats
  alignas(64) std::array<std::byte, 2 * kBlockTokens> terms;  // and for those that are integers
  std::array<std::uint32_t, kTiles> visible;
  float unit;
  float fixed;  // what the zeros of tokens add to each channel
};

// Elements become terms, the largest kMostUnits units. Returns the unit. Where `group_sums` is
// given, adds up the elements of every `group`, as rounded.
template <typename Codes>
float store_terms(std::byte* to, std::size_t count, std::span<const float> from,
                  float* group_sums = nullptr, std::size_t group = 1) {
  Floats most = zeros();
  for (std::size_t i = 0; i < from.size(); i += kLineRows)
    most = larger(most, magnitude(load(&from[i])));
  const float highest = largest(most);
  const float unit = highest / Codes::kMostUnits;
  const Floats inverse = broadcast(highest > 0 ? Codes::kMostUnits / highest : 0);
  for (std::size_t i = 0; i < from.size(); i += kLineRows) {
    const Words units =
        Codes::store_terms(to + i * sizeof(typename Codes::Term), count, load(&from[i]) * inverse);
    if (group_sums != nullptr) group_sums[i / group] += sum(to_floats(units)) * unit;
  }
  return unit;
}

// Where a line lies, and how far on the one that is to be fetched meanwhile.
struct LinePlace {
  const std::byte* line;
  std::ptrdiff_t ahead;
};

// Sums of products of the integer codes of kWidth runs of lines with an operand a row, exact.
// `stride`: bytes from the operand of a row to the next one's. `count`: elements of an operand.
template <typename Codes, int bits, int rows, std::size_t stride, std::size_t count>
class IntegerDots {
 public:
  static constexpr int kDepth = 32 / bits, kWidth = integer_width(rows);
  static constexpr std::size_t kElementBytes = sizeof(typename Codes::Term);
  using Places = std::array<LinePlace, kWidth>;

  IntegerDots() {
    for (auto& run : sums_)
      for (auto& row : run)
        for (auto& term : row)
          for (Words& sum : term) sum = zero_words();
  }

  [[gnu::always_inline]] void add(const Places& places, int lines, const std::byte* operand) {
    for (Bytes at = 0; at < lines * kLineBytes; at += kLines * kLineBytes)
      unrolled<kLines>([&](auto i) __attribute__((always_inline)) {
        Words words[kWidth];
        unrolled<kWidth>([&](auto w) __attribute__((always_inline)) {
          const std::byte* line = places[w].line + at + i * kLineBytes;
          words[w] = load_line(line);
          prefetch(line + places[w].ahead);
        });
        unrolled<Codes::kSteps>([&](auto step) __attribute__((always_inline)) {
          Words codes[kWidth];
          unrolled<kWidth>([&](auto w) __attribute__((always_inline)) {
            codes[w] = Codes::template at<step>(words[w]);
          });
          constexpr int chain = (i * Codes::kSteps + step) % kChains;
          unrolled<rows>([&](auto r) __attribute__((always_inline)) {
            unrolled<Codes::kTerms>([&](auto t) __attribute__((always_inline)) {
              std::int32_t terms;
              std::memcpy(
                  &terms,
                  operand + r * stride + (t * count + step * Codes::kElements) * kElementBytes,
                  sizeof(terms));
              unrolled<kWidth>([&](auto w) __attribute__((always_inline)) {
                Words& sum = sums_[w][r][t][chain];
                sum = Codes::add_products(sum, codes[w], terms);
              });
            });
          });
        });
        operand += kDepth * kElementBytes;
      });
  }

  Floats result(int run, int row) const {
    Floats total = zeros();
    for (const auto& term : sums_[run][row]) {
      Words sum = term[0];
      for (int c = 1; c < kChains; ++c) sum = sum + term[c];
      total = multiply_add(total, broadcast(Codes::kTermStep), to_floats(sum));
    }
    return total;
  }

 private:
  static constexpr int kChains = chains(rows);
  static constexpr int kLines = Codes::kSteps < kChains ? kChains / Codes::kSteps : 1;

  Words sums_[kWidth][rows][Codes::kTerms][kChains];
};

// The same of 16-bit and of E4M3 numbers, in binary32.
template <typename Pairs, int bits, int rows, std::size_t stride>
class FloatDots {
 public:
  static constexpr int kDepth = 32 / bits, kWidth = float_width(rows);
  static constexpr std::size_t kElementBytes = sizeof(float);
  using Places = std::array<LinePlace, kWidth>;

  FloatDots() {
    for (auto& run : sums_)
      for (auto& row : run)
        for (PairSums& sum : row) sum = no_sums();
  }

  [[gnu::always_inline]] void add(const Places& places, int lines, const std::byte* operand) {
    for (Bytes at = 0; at < lines * kLineBytes; at += kLines * kLineBytes)
      unrolled<kLines>([&](auto i) __attribute__((always_inline)) {
        const auto line = [&](auto w) __attribute__((always_inline)) {
          return places[w].line + at + i * kLineBytes;
        };
        unrolled<kWidth>([&](auto w) __attribute__((always_inline)) {
          prefetch(line(w) + places[w].ahead);
        });
        unrolled<kPairs>([&](auto p) __attribute__((always_inline)) {
          FloatPairs pairs[kWidth];
          unrolled<kWidth>([&](auto w) __attribute__((always_inline)) {
            if constexpr (bits == 8) {
              pairs[w] = Pairs::of(e4m3_as_fp16<p>(load_line(line(w))));
            } else {
              pairs[w] = Pairs::load(line(w));
            }
          });
          constexpr int chain = (i * kPairs + p) % kChains;
          unrolled<rows>([&](auto r) __attribute__((always_inline)) {
            const FloatPairs factor = Pairs::factors(operand + r * stride + 2 * p * kElementBytes);
            unrolled<kWidth>([&](auto w) __attribute__((always_inline)) {
              PairSums& sum = sums_[w][r][chain];
              sum = add_products(sum, pairs[w], factor);
            });
          });
        });
        operand += kDepth * kElementBytes;
      });
  }

  Floats result(int run, int row) const {
    PairSums sum = sums_[run][row][0];
    for (int c = 1; c < kChains; ++c) sum = sum + sums_[run][row][c];
    const Floats total = Pairs::rows(sum);
    return bits == 8 ? total * broadcast(256) : total;
  }

 private:
  static constexpr int kPairs = kDepth / 2, kChains = chains(rows);
  static constexpr int kLines = kPairs < kChains ? kChains / kPairs : 1;

  PairSums sums_[kWidth][rows][kChains];
};

// What a number format is to these kernels.
template <typename Codes, int bits>
struct IntegerFormat : Codes {
  static constexpr bool kIntegers = true, kScaled = true;
  template <int rows, std::size_t stride, std::size_t count>
  using Dots = IntegerDots<Codes, bits, rows, stride, count>;
};
template <typename Pairs, int bits>
struct FloatFormat {
  static constexpr bool kIntegers = false, kScaled = bits == 8;
  template <int rows, std::size_t stride, std::size_t>
  using Dots = FloatDots<Pairs, bits, rows, stride>;
};

// The query times the scales of channels, for the tokens that share them.
template <typename Format>
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
  if constexpr (Format::kIntegers)
    row.unit =
        store_terms<Format>(row.terms.data(), kMaxHeadDim,
                            std::span(row.factors).first(static_cast<std::size_t>(side.dims)));
}

// The operand for keys with a scale a token.
template <typename Format>
void prepare(const Side& side, Row& row) {
  row.folded = nullptr;
  row.fixed = 0;
  row.unit = 1;
  row.group_sums = {};
  if (side.format.per_channel) return;
  if constexpr (Format::kIntegers) {
    row.unit = store_terms<Format>(row.terms.data(), kMaxHeadDim,
                                   std::span(row.query).first(static_cast<std::size_t>(side.dims)),
                                   row.group_sums.data(), static_cast<std::size_t>(side.group));
  } else {
    row.factors = row.query;
  }
}

template <typename Format>
const std::byte* operand(const Row& row) {
  if constexpr (Format::kIntegers) return row.terms.data();
  return reinterpret_cast<const std::byte*>(row.factors.data());
}

// Logits where tokens share the scales of channels: the operand changes with the tokens.
template <typename Format, int rows, typename Places, typename Metadata, typename Store>
void add_folded_logits(const Side& side, const Places& places, const Metadata& metadata, Row* row,
                       const Store& store_logits) {
  using Dots = typename Format::template Dots<rows, sizeof(Row), kMaxHeadDim>;
  bool alike = true;
  for (const std::byte* each : metadata) alike &= each == metadata[0];
  for (std::size_t w = 0; w < metadata.size(); ++w) {
    for (int r = 0; r < rows; ++r) fold_scales<Format>(side, metadata[w], row[r]);
    Places own = places;
    if (!alike) own.fill(places[w]);
    Dots dots;
    dots.add(own, side.dims / Dots::kDepth, operand<Format>(row[0]));
    for (int run = 0; run < Dots::kWidth; ++run)
      for (int r = 0; r < rows; ++r)
        if (alike || run == static_cast<int>(w))
          store_logits(
              run, r,
              multiply_add(dots.result(run, r), broadcast(row[r].unit), broadcast(row[r].fixed)));
    if (alike) return;
  }
}

// Logits of the tokens of a block for `rows` rows.
template <typename Format, int rows>
void add_logits(const Side& side, const Block& block, Row* row, Weights* weights) {
  using Dots = typename Format::template Dots<rows, sizeof(Row), kMaxHeadDim>;
  const Bytes tile_lines = side.dims / Dots::kDepth;
  for (int first = 0; first < block.tiles; first += Dots::kWidth) {
    typename Dots::Places places;
    std::array<const std::byte*, Dots::kWidth> metadata;
    for (int w = 0; w < Dots::kWidth; ++w) {
      // What is too many of the tiles, nobody sees.
      const auto tile = static_cast<std::size_t>(std::min(first + w, block.tiles - 1));
      const auto run = static_cast<std::size_t>(w);
      const Tokens token = block.in_page[tile];
      places[run] = {block.pages[tile] + side.lines + token / kLineRows * tile_lines * kLineBytes,
                     block.ahead[tile]};
      metadata[run] = block.pages[tile] + side.metadata_of(token);
    }
    const auto store_logits = [&](int w, int r, Floats logits) {
      store(&weights[r].weights[static_cast<std::size_t>((first + w) * kLineRows)], logits);
    };
    if (side.format.per_channel) {
      add_folded_logits<Format, rows>(side, places, metadata, row, store_logits);
      continue;
    }
    Floats logits[Dots::kWidth][rows];
    for (auto& run : logits)
      for (Floats& logit : run) logit = zeros();
    std::size_t group = 0;
    for (int dim = 0; dim < side.dims; dim += side.group, ++group) {
      const int lines = std::min(side.group, side.dims - dim) / Dots::kDepth;
      Dots dots;
      dots.add(places, lines,
               operand<Format>(row[0]) + static_cast<std::size_t>(dim) * Dots::kElementBytes);
      for (int w = 0; w < Dots::kWidth; ++w) {
        const auto run = static_cast<std::size_t>(w);
        places[run].line += lines * kLineBytes;
        if constexpr (Format::kScaled) {
          const Affine affine =
              load_affine(side, metadata[run], metadata[run] + kLineRows * side.format.scale_bytes);
          metadata[run] += kLineRows * side.pair();
          for (int r = 0; r < rows; ++r) {
            Floats& logit = logits[w][r];
            logit = multiply_add(dots.result(w, r) * broadcast(row[r].unit), affine.scale, logit);
            logit = multiply_add(affine.zero, broadcast(row[r].group_sums[group]), logit);
          }
        } else {
          for (int r = 0; r < rows; ++r) logits[w][r] = dots.result(w, r);
        }
      }
    }
    for (int w = 0; w < std::min(Dots::kWidth, block.tiles - first); ++w)
      for (int r = 0; r < rows; ++r) store_logits(w, r, logits[w][r]);
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
template <typename Format>
void make_operand(const Affine* affine, int tiles, Weights& weights) {
  if constexpr (Format::kScaled) {
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
  weights.unit = 1;
  if constexpr (Format::kIntegers)
    weights.unit = store_terms<Format>(
        weights.terms.data(), kBlockTokens,
        std::span(weights.factors).first(static_cast<std::size_t>(tiles * kLineRows)));
}

template <typename Format>
const std::byte* operand(const Weights& weights) {
  if constexpr (Format::kIntegers) return weights.terms.data();
  return reinterpret_cast<const std::byte*>(Format::kScaled ? weights.factors.data()
                                                            : weights.weights.data());
}

// Weighted values of the tokens of a block.
template <typename Format, int rows>
void add_values(const Side& side, const Block& block, Row* row, Weights* weights) {
  using Dots = typename Format::template Dots<rows, sizeof(Weights), kBlockTokens>;
  const Bytes block_step = side.page_tokens / Dots::kDepth * kLineBytes;
  std::array<const std::byte*, kTiles> lines, metadata;
  for (std::size_t tile = 0; tile < static_cast<std::size_t>(block.tiles); ++tile) {
    const Tokens token = block.in_page[tile];
    lines[tile] = block.pages[tile] + side.lines + token / Dots::kDepth * kLineBytes;
    metadata[tile] = block.pages[tile] + side.metadata_of(token);
  }
  // Calls add(dots, run, dim) for each 16 channels of [dim, end), tiles [first_tile, end_tile).
  const auto for_channels = [&](int dim, int end, int first_tile, int end_tile, const auto& add) {
    for (; dim < end; dim += Dots::kWidth * kLineRows) {
      Dots dots;
      for (int tile = first_tile; tile < end_tile; ++tile) {
        typename Dots::Places places;
        for (int w = 0; w < Dots::kWidth; ++w) {
          const int channel_block = std::min(dim / kLineRows + w, end / kLineRows - 1);
          places[static_cast<std::size_t>(w)] = {
              lines[static_cast<std::size_t>(tile)] + channel_block * block_step,
              block.ahead[static_cast<std::size_t>(tile)]};
        }
        dots.add(places, kLineRows / Dots::kDepth,
                 operand<Format>(weights[0]) +
                     static_cast<std::size_t>(tile * kLineRows) * Dots::kElementBytes);
      }
      for (int w = 0; w < std::min(Dots::kWidth, (end - dim) / kLineRows); ++w)
        add(dots, w, dim + w * kLineRows);
    }
  };
  if (side.format.per_channel) {
    for (int r = 0; r < rows; ++r) make_operand<Format>(nullptr, block.tiles, weights[r]);
    for (int first = 0, end = 0; first < block.tiles; first = end) {
      const std::byte* scales = metadata[static_cast<std::size_t>(first)];
      while (end < block.tiles && metadata[static_cast<std::size_t>(end)] == scales) ++end;
      float sums[rows];
      for (int r = 0; r < rows; ++r) {
        Floats total = zeros();
        for (int tile = first; tile < end; ++tile)
          total = total + load(&weights[r].weights[static_cast<std::size_t>(tile * kLineRows)]);
        sums[r] = sum(total);
      }
      for_channels(0, side.dims, first, end, [&](const Dots& dots, int run, int dim) {
        const Affine affine = load_affine(side, scales + Bytes{dim} * side.format.scale_bytes,
                                          scales + Bytes{side.dims} * side.format.scale_bytes +
                                              Bytes{dim} * side.format.zero_bytes);
        for (int r = 0; r < rows; ++r) {
          Floats output = load(row[r].output + dim);
          output =
              multiply_add(dots.result(run, r) * broadcast(weights[r].unit), affine.scale, output);
          store(row[r].output + dim, multiply_add(affine.zero, broadcast(sums[r]), output));
        }
      });
    }
    return;
  }
  for (int dim = 0; dim < side.dims; dim += side.group) {
    if constexpr (Format::kScaled) {
      std::array<Affine, kTiles> affine;
      for (std::size_t tile = 0; tile < static_cast<std::size_t>(block.tiles); ++tile) {
        affine[tile] =
            load_affine(side, metadata[tile], metadata[tile] + kLineRows * side.format.scale_bytes);
        metadata[tile] += kLineRows * side.pair();
      }
      for (int r = 0; r < rows; ++r) make_operand<Format>(affine.data(), block.tiles, weights[r]);
    }
    for_channels(dim, std::min(side.dims, dim + side.group), 0, block.tiles,
                 [&](const Dots& dots, int run, int channel) {
                   for (int r = 0; r < rows; ++r) {
                     Floats output = load(row[r].output + channel);
                     if constexpr (Format::kScaled) {
                       output = multiply_add(dots.result(run, r), broadcast(weights[r].unit),
                                             output + broadcast(weights[r].fixed));
                     } else {
                       output = output + dots.result(run, r);
                     }
                     store(row[r].output + channel, output);
                   }
                 });
  }
}

// The steps of a number format for 1 to kRowsAtOnce rows.
using Phase = void (*)(const Side&, const Block&, Row*, Weights*);
struct Kernels {
  void (*prepare)(const Side&, Row&);
  std::array<Phase, kRowsAtOnce> logits, values;
};

template <typename Format, int most_rows = kRowsAtOnce>
constexpr Kernels kernels_of() {
  return []<int... i>(std::integer_sequence<int, i...>) {
    return Kernels{prepare<Format>, {add_logits<Format, i + 1>...}, {add_values<Format, i + 1>...}};
  }
  (std::make_integer_sequence<int, most_rows>{});
}

template <int bits, bool e2m1>
const Kernels& integer_kernels(bool few_rows) {
  static constexpr Kernels few =
      kernels_of<IntegerFormat<CodesOfFewRows<bits, e2m1>, bits>, kFewRows>();
  static constexpr Kernels any = kernels_of<IntegerFormat<PairCodes<bits, e2m1>, bits>>();
  return few_rows ? few : any;
}

// `few_rows`: never more than kFewRows at once.
inline const Kernels& kernels_of(NumberFormat number, bool few_rows) {
  static constexpr Kernels fp16 = kernels_of<FloatFormat<Fp16Pairs, 16>>();
  static constexpr Kernels bf16 = kernels_of<FloatFormat<Bf16Pairs, 16>>();
  static constexpr Kernels e4m3 = kernels_of<FloatFormat<Fp16Pairs, 8>>();
  switch (number) {
    case NumberFormat::fp16:
      return fp16;
    case NumberFormat::bf16:
      return bf16;
    case NumberFormat::fp8_e4m3:
      return e4m3;
    case NumberFormat::int8:
      return integer_kernels<8, false>(few_rows);
    case NumberFormat::int4:
      return integer_kernels<4, false>(few_rows);
    case NumberFormat::int2:
      return integer_kernels<2, false>(few_rows);
    case NumberFormat::nvfp4:
    case NumberFormat::mxfp4:
      break;
  }
  return integer_kernels<4, true>(few_rows);
}

#include "kernels/attention_bias_simd.hpp"

// Up to kPassRows query rows against all pages of a list.
class Pass {
 public:
  Pass(const PageList& list, bool few_rows)
      : list_(list),
        layout_(list.shape),
        key_kernels_(kernels_of(list.shape.format.key.number, few_rows)),
        value_kernels_(kernels_of(list.shape.format.value.number, few_rows)) {
    if (lacks_bias(list)) bias_.emplace(list.known_bias, list.tokens);
  }

  /// Rows [begin, end) of [tokens, heads of the group] of a KV head.
  void add_head(const Queries& queries, int kv_head, std::int64_t begin, std::int64_t end,
                std::span<float> partials) {
    Head& head = heads_[static_cast<std::size_t>(head_count_++)];
    head = {kv_head, row_count_, static_cast<int>(end - begin), Side(list_, false, kv_head),
            Side(list_, true, kv_head)};
    const int group = queries.heads / list_.shape.kv_heads;
    for (std::int64_t i = begin; i < end; ++i)
      prepare_row(rows_[static_cast<std::size_t>(row_count_++)], queries, i / group, kv_head,
                  kv_head * group + static_cast<int>(i % group), head.keys, partials);
  }

  void run() {
    const Tokens page_tokens = list_.shape.tokens;
    const auto pages = static_cast<std::int64_t>(list_.pages.size());
    // Small pages go together, so that a block is full.
    const std::int64_t together = std::max<Tokens>(1, kBlockTokens / page_tokens);
    // All heads of some tokens: of whole pages, as they lie, or of a block that shares its cosines.
    const Tokens step =
        bias_ ? std::min<Tokens>(kBlockTokens, together * page_tokens) : together * page_tokens;
    for (std::int64_t page = 0; page < pages; page += together) {
      const Tokens page_end = std::min(list_.tokens, (page + together) * page_tokens);
      for (Tokens begin = page * page_tokens; begin < page_end; begin += step) {
        if (bias_) bias_->move_to(begin);
        const Tokens end = std::min(page_end, begin + step);
        for (int h = 0; h < head_count_; ++h) {
          const Head& head = heads_[static_cast<std::size_t>(h)];
          prefetch_metadata(head.kv_head, page, page + together);
          for (Tokens token = begin; token < end; token += kBlockTokens)
            add_block(block_at(token, std::min(end, token + kBlockTokens), head.kv_head, together),
                      head);
        }
      }
    }
  }

 private:
  struct Head {
    int kv_head, first_row, rows;
    Side keys, values;
  };

  void prepare_row(Row& row, const Queries& queries, Tokens token, int kv_head, int head,
                   const Side& keys, std::span<float> partials) const {
    const int dims = list_.shape.head_dim;
    const std::uint16_t* from =
        queries.elements + token * queries.token_stride + head * queries.head_stride;
    if (queries.number == NumberFormat::bf16) {
      for (int d = 0; d < dims; ++d)
        row.query[static_cast<std::size_t>(d)] = queries.scale * from_bf16(from[d]);
    } else {
      for (int d = 0; d < dims; d += kLineRows)
        store(&row.query[static_cast<std::size_t>(d)],
              load_fp16(reinterpret_cast<const std::byte*>(from + d)) * broadcast(queries.scale));
    }
    const std::span query = std::span(row.query).first(static_cast<std::size_t>(dims));
    if (bias_) bias_terms(*list_.known_bias.bias, kv_head, query, row.cosine_terms, row.sine_terms);
    if (const int order = list_.shape.format.key_rotation;
        order > 0 && keys.kind != Quantization::none)
      rotate_blocks(query, order);
    const PartialRow partial = partial_row(partials, token * queries.heads + head, dims);
    row.output = partial.output.data();
    row.maximum = partial.maximum;
    row.sum = partial.sum;
    row.bounded = !queries.positions.empty();
    if (row.bounded) row.seen_positions = seen_positions(queries, token);
    key_kernels_.prepare(keys, row);
  }

  // Tokens of a tile that the row sees, a bit each.
  std::uint32_t visible(const Row& row, Tokens token) const {
    const std::uint32_t mask = present_tokens(list_, token);
    if (!row.bounded) return mask;
    return within(mask, list_.positions.data() + token, row.seen_positions.first,
                  row.seen_positions.last);
  }

  // Payload of the pages is read from head to head, and from a page to the one that is `together`
  // further on.
  Block block_at(Tokens begin, Tokens end, int kv_head, std::int64_t together) const {
    const Tokens page_tokens = list_.shape.tokens;
    const Bytes payload = layout_.key_lines(list_.shape.kv_heads);
    const Bytes distance = std::min(kPrefetchBytes, payload);
    const bool within = layout_.key_lines(kv_head) + distance < payload;
    Block block{begin, 0, {}, {}, {}};
    for (Tokens token = begin; token < end; token += kLineRows, ++block.tiles) {
      const auto tile = static_cast<std::size_t>(block.tiles);
      const auto page = static_cast<std::size_t>(token / page_tokens);
      const std::size_t next = page + static_cast<std::size_t>(together);
      block.pages[tile] = list_.pages[page];
      block.in_page[tile] = token % page_tokens;
      block.ahead[tile] = 0;
      if (within) block.ahead[tile] = distance;
      if (!within && next < list_.pages.size())
        block.ahead[tile] = list_.pages[next] - list_.pages[page] + distance - payload;
    }
    return block;
  }

  void prefetch_metadata(int kv_head, std::int64_t begin, std::int64_t end) const {
    const Bytes head_bytes = layout_.key_metadata(1) - layout_.key_metadata(0);
    const auto heads_ahead = static_cast<int>(divide_up(kPrefetchBytes, layout_.key_lines(1)));
    std::int64_t step = 0;
    int head = kv_head + heads_ahead;
    if (head >= list_.shape.kv_heads) {
      step = end - begin;
      head = std::min(head - list_.shape.kv_heads, list_.shape.kv_heads - 1);
    }
    const auto pages = static_cast<std::int64_t>(list_.pages.size());
    for (std::int64_t page = begin + step; page < std::min(pages, end + step); ++page) {
      const std::byte* metadata =
          list_.pages[static_cast<std::size_t>(page)] + layout_.key_metadata(head);
      for (Bytes at = 0; at < head_bytes; at += kLineBytes) prefetch(metadata + at);
    }
  }

  void add_block(const Block& block, const Head& head) {
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
      key_kernels_.logits[static_cast<std::size_t>(count - 1)](head.keys, block, rows,
                                                               weights.data());
      for (int r = 0; bias_ && r < count; ++r)
        bias_->add_to(rows[r].cosine_terms, rows[r].sine_terms,
                      weights[static_cast<std::size_t>(r)].weights.data());
      const std::byte* next = block.pages[0] + head.values.lines + block.ahead[0];
      for (Bytes at = 0; at < kIdleBytes; at += kLineBytes) prefetch(next + at);
      for (int r = 0; r < count; ++r)
        weigh(block, head.keys.dims, rows[r], weights[static_cast<std::size_t>(r)]);
      value_kernels_.values[static_cast<std::size_t>(count - 1)](head.values, block, rows,
                                                                 weights.data());
    }
  }

  const PageList& list_;
  PageLayout layout_;
  const Kernels& key_kernels_;
  const Kernels& value_kernels_;
  std::optional<BlockBias> bias_;
  std::array<Row, kPassRows> rows_;
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
      Pass pass(list, head_rows <= kFewRows);
      for (int head = first; head < std::min(end_kv_head, first + heads); ++head)
        pass.add_head(queries, head, row, std::min(head_rows, row + kPassRows), partials);
      pass.run();
    }
}
