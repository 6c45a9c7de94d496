#include "kernels/attention.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/attention_targets.hpp"
#include "kernels/hadamard.hpp"
#include "kernels/quantizer.hpp"
#include "kernels/query_rows.hpp"

namespace modalkv {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr int kBlockRows = 16;  // query rows that share an unpacked tile

using Lanes = std::array<float, kLineRows>;
using Words = std::array<std::uint32_t, kLineRows>;

// Words of one line to levels, depth by depth. Loops over rows, so that compilers make vectors of
// them.
class Unpacker {
 public:
  explicit Unpacker(const ElementFormat& format)
      : number_(format.number), bits_(payload_bits(format.number)), format_(format) {
    if (quantization(format) != Quantization::floating) return;
    const GroupCoder coder(format, {});
    for (std::uint32_t code = 0; code < 1u << bits_; ++code) table_[code] = coder.value(code);
  }

  int depth() const { return 32 / bits_; }

  void unpack(const std::byte* line, Lanes* levels) const {
    Words words;
    std::memcpy(words.data(), line, kLineBytes);
    for (int e = 0; e < depth(); ++e) {
      const int shift = bit_of(format_, e);
      const std::uint32_t mask = (std::uint32_t{1} << bits_) - 1;
      Words codes;
      for (std::size_t r = 0; r < kLineRows; ++r) codes[r] = words[r] >> shift & mask;
      to_levels(codes, levels[e]);
    }
  }

 private:
  void to_levels(const Words& codes, Lanes& levels) const {
    switch (number_) {
      case NumberFormat::int8:
      case NumberFormat::int4:
      case NumberFormat::int2:
        for (std::size_t r = 0; r < kLineRows; ++r)
          levels[r] = static_cast<float>(static_cast<std::int32_t>(codes[r]));
        break;
      case NumberFormat::bf16:
        for (std::size_t r = 0; r < kLineRows; ++r)
          levels[r] = std::bit_cast<float>(codes[r] << 16);
        break;
      case NumberFormat::fp16:
        // The exponent moves from FP16's bias to binary32's; subnormal numbers come out exact too.
        for (std::size_t r = 0; r < kLineRows; ++r)
          levels[r] =
              std::bit_cast<float>((codes[r] & 0x8000) << 16 |
                                   std::bit_cast<std::uint32_t>(
                                       std::bit_cast<float>((codes[r] & 0x7fff) << 13) * 0x1p112f));
        break;
      default:
        for (std::size_t r = 0; r < kLineRows; ++r) levels[r] = table_[codes[r]];
    }
  }

  NumberFormat number_;
  int bits_;
  ElementFormat format_;
  std::array<float, 256> table_{};
};

// Scale and zero of a group as two floats.
struct Affine {
  float scale = 1, zero = 0;
};

Affine load_affine(const ElementFormat& format, const std::byte* scale, const std::byte* zero,
                   float tensor_scale) {
  const auto load = [](const std::byte* at, int bytes) {
    std::uint16_t value = 0;
    std::memcpy(&value, at, static_cast<std::size_t>(bytes));
    return value;
  };
  const GroupScale group = stored_scale(format, load(scale, format.scale_bytes),
                                        load(zero, format.zero_bytes), tensor_scale);
  return {group.scale, group.zero};
}

// One side (K or V) of one head in one page.
struct SideBytes {
  const ElementFormat& format;
  const std::byte* lines;
  const std::byte* metadata;
  float tensor_scale;

  Affine affine(const PageLayout& layout, Tokens token, int dim) const {
    return load_affine(format, metadata + layout.scale(format, token, dim),
                       metadata + layout.zero(format, token, dim), tensor_scale);
  }
};

// Attention of up to kBlockRows query rows over the pages of a list, for one KV head.
class HeadAttention {
 public:
  HeadAttention(const PageList& list, int kv_head)
      : list_(list),
        layout_(list.shape),
        head_(kv_head),
        dims_(list.shape.head_dim),
        key_unpacker_(list.shape.format.key),
        value_unpacker_(list.shape.format.value) {}

  void add_row(const Queries& queries, Tokens token, int head, PartialRow partial) {
    Row& row = rows_[static_cast<std::size_t>(count_++)];
    const std::span query = std::span(row.query).first(static_cast<std::size_t>(dims_));
    load_query(queries, token, head, query);
    if (lacks_bias(list_))
      bias_terms(*list_.known_bias.bias, head_, query, row.cosine_terms, row.sine_terms);
    if (const int order = list_.shape.format.key_rotation;
        order > 0 && quantization(list_.shape.format.key) != Quantization::none)
      rotate_blocks(query, order);
    row.output = partial.output.data();
    row.maximum = partial.maximum;
    row.sum = partial.sum;
    row.bounded = !queries.positions.empty();
    if (row.bounded) row.seen_positions = seen_positions(queries, token);
  }

  bool full() const { return count_ == kBlockRows; }
  bool empty() const { return count_ == 0; }

  // Runs the rows that were added, and forgets them.
  void run() {
    const Tokens page_tokens = list_.shape.tokens;
    for (Tokens begin = 0; begin < list_.tokens; begin += kLineRows) {
      const std::byte* page = list_.pages[static_cast<std::size_t>(begin / page_tokens)];
      const std::uint32_t present = present_tokens(list_, begin);
      if (present == 0) continue;
      add_tile(page, begin % page_tokens, begin, present);
    }
    count_ = 0;
  }

 private:
  struct Row {
    std::array<float, kMaxHeadDim> query;
    std::array<float, kMaxHeadDim / 2> cosine_terms, sine_terms;  // of a known bias
    float* output;
    float* maximum;
    float* sum;
    bool bounded;
    SeenPositions seen_positions;  // where bounded
    Lanes weights;                 // of this tile's tokens: logits, then exponentials
    bool seen;                     // any of them
  };

  std::span<Row> rows() { return {rows_.data(), static_cast<std::size_t>(count_)}; }

  void add_tile(const std::byte* page, Tokens token, Tokens list_token, std::uint32_t present) {
    const SideBytes keys{list_.shape.format.key, page + layout_.key_lines(head_),
                         page + layout_.key_metadata(head_), list_.scales.key};
    const SideBytes values{list_.shape.format.value, page + layout_.value_lines(head_),
                           page + layout_.value_metadata(head_), list_.scales.value};
    add_logits(keys, token);
    if (lacks_bias(list_)) add_bias(list_token);
    bool any = false;
    for (Row& row : rows()) any |= weigh(row, list_token, present);
    if (any) add_values(values, token);
  }

  void add_logits(const SideBytes& keys, Tokens token) {
    const int depth = key_unpacker_.depth();
    const std::byte* line = keys.lines + token / kLineRows * (dims_ / depth) * kLineBytes;
    for (int d = 0; d < dims_; d += depth, line += kLineBytes)
      key_unpacker_.unpack(line, &tile_[static_cast<std::size_t>(d)]);
    for (Row& row : rows()) row.weights = {};
    if (keys.format.per_channel) {
      for (int d = 0; d < dims_; ++d) {
        const Affine affine = keys.affine(layout_, token, d);
        const Lanes& levels = tile_[static_cast<std::size_t>(d)];
        for (Row& row : rows()) {
          const float scaled = row.query[static_cast<std::size_t>(d)] * affine.scale;
          const float fixed = row.query[static_cast<std::size_t>(d)] * affine.zero;
          for (std::size_t r = 0; r < kLineRows; ++r) row.weights[r] += scaled * levels[r] + fixed;
        }
      }
      return;
    }
    const auto group = static_cast<int>(group_elements(keys.format, list_.shape));
    for (int first = 0; first < dims_; first += group) {
      Lanes scales, zeros;
      for (std::size_t r = 0; r < kLineRows; ++r) {
        const Affine affine = keys.affine(layout_, token + static_cast<Tokens>(r), first);
        scales[r] = affine.scale;
        zeros[r] = affine.zero;
      }
      const int end = std::min(dims_, first + group);
      for (Row& row : rows()) {
        Lanes dots{};
        float sum = 0;
        for (int d = first; d < end; ++d) {
          const float query = row.query[static_cast<std::size_t>(d)];
          const Lanes& levels = tile_[static_cast<std::size_t>(d)];
          for (std::size_t r = 0; r < kLineRows; ++r) dots[r] += query * levels[r];
          sum += query;
        }
        for (std::size_t r = 0; r < kLineRows; ++r)
          row.weights[r] += scales[r] * dots[r] + zeros[r] * sum;
      }
    }
  }

  void add_bias(Tokens list_token) {
    const KnownBias& known = list_.known_bias;
    const int axes = known.bias->sections.axes();
    const Tokens tokens = std::min<Tokens>(kLineRows, list_.tokens - list_token);
    for (Row& row : rows())
      for (Tokens t = 0; t < tokens; ++t)
        row.weights[static_cast<std::size_t>(t)] +=
            bias_logit(*known.bias, row.cosine_terms, row.sine_terms,
                       &known.positions[static_cast<std::size_t>((list_token + t) * axes)]);
  }

  // Logits become exponentials against the row's maximum, which may grow.
  bool weigh(Row& row, Tokens list_token, std::uint32_t present) const {
    float highest = kNever;
    for (std::size_t r = 0; r < kLineRows; ++r) {
      bool visible = (present >> r & 1) != 0;
      if (visible && row.bounded)
        visible =
            row.seen_positions.contain(list_.positions[static_cast<std::size_t>(list_token) + r]);
      if (!visible) row.weights[r] = kNever;
      highest = std::max(highest, row.weights[r]);
    }
    row.seen = highest > kNever;
    if (!row.seen) return false;
    if (highest > *row.maximum) {
      const float shrink = std::exp(*row.maximum - highest);  // 0 where there was nothing
      *row.maximum = highest;
      *row.sum *= shrink;
      for (int d = 0; d < dims_; ++d) row.output[d] *= shrink;
    }
    for (float& weight : row.weights) {
      weight = std::exp(weight - *row.maximum);
      *row.sum += weight;
    }
    return true;
  }

  void add_values(const SideBytes& values, Tokens token) {
    const int depth = value_unpacker_.depth();
    const bool per_channel = values.format.per_channel;
    const auto group = static_cast<int>(group_elements(values.format, list_.shape));
    Lanes scales{}, zeros{};
    for (int block = 0; block < dims_; block += kLineRows) {
      const std::byte* line =
          values.lines +
          (block / kLineRows * (list_.shape.tokens / depth) + token / depth) * kLineBytes;
      for (int t = 0; t < kLineRows; t += depth, line += kLineBytes)
        value_unpacker_.unpack(line, &tile_[static_cast<std::size_t>(t)]);
      // Lanes are channels in the one case and tokens in the other.
      for (int r = 0; r < kLineRows && (per_channel || block % group == 0); ++r) {
        const Affine affine = per_channel ? values.affine(layout_, token, block + r)
                                          : values.affine(layout_, token + r, block);
        scales[static_cast<std::size_t>(r)] = affine.scale;
        zeros[static_cast<std::size_t>(r)] = affine.zero;
      }
      for (Row& row : rows()) {
        if (!row.seen) continue;
        Lanes sums{};
        float fixed = 0;
        for (std::size_t t = 0; t < kLineRows; ++t) {
          const float weight = row.weights[t] * (per_channel ? 1 : scales[t]);
          fixed += row.weights[t] * (per_channel ? 1 : zeros[t]);
          for (std::size_t r = 0; r < kLineRows; ++r) sums[r] += weight * tile_[t][r];
        }
        float* output = row.output + block;
        for (std::size_t r = 0; r < kLineRows; ++r)
          output[r] += per_channel ? scales[r] * sums[r] + zeros[r] * fixed : sums[r] + fixed;
      }
    }
  }

  const PageList& list_;
  PageLayout layout_;
  int head_;
  int dims_;
  Unpacker key_unpacker_, value_unpacker_;
  std::array<Row, kBlockRows> rows_;
  int count_ = 0;
  std::array<Lanes, kMaxHeadDim> tile_;
};

template <typename Store>
void finish(std::span<const float> partials, std::int64_t rows, int head_dim,
            std::span<float> log_sum_exp, Store store) {
  for (std::int64_t row = 0; row < rows; ++row) {
    const float* from = partials.data() + row * (head_dim + 2);
    const float maximum = from[head_dim], sum = from[head_dim + 1];
    for (int d = 0; d < head_dim; ++d)
      store(static_cast<std::size_t>(row * head_dim + d), sum > 0 ? from[d] / sum : 0.0f);
    if (!log_sum_exp.empty())
      log_sum_exp[static_cast<std::size_t>(row)] = sum > 0 ? maximum + std::log(sum) : kNever;
  }
}

}  // namespace

void clear_partials(std::span<float> partials, std::int64_t rows, int head_dim) {
  for (std::int64_t i = 0; i < rows; ++i) {
    const PartialRow row = partial_row(partials, i, head_dim);
    std::fill(row.output.begin(), row.output.end(), 0.0f);
    *row.maximum = kNever;
    *row.sum = 0;
  }
}

void attend_portable(const Queries& queries, const PageList& list, int first_kv_head,
                     int end_kv_head, std::span<float> partials) {
  const int group = queries.heads / list.shape.kv_heads;
  for (int kv_head = first_kv_head; kv_head < end_kv_head; ++kv_head) {
    HeadAttention attention(list, kv_head);
    for (Tokens token = 0; token < queries.tokens; ++token)
      for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
        attention.add_row(queries, token, head,
                          partial_row(partials, token * queries.heads + head, list.shape.head_dim));
        if (attention.full()) attention.run();
      }
    if (!attention.empty()) attention.run();
  }
}

void merge_partials(std::span<const float> partials, std::int64_t parts, std::int64_t rows,
                    int head_dim, std::span<float> to) {
  const std::int64_t stride = head_dim + 2;
  for (std::int64_t row = 0; row < rows; ++row) {
    const PartialRow merged = partial_row(to, row, head_dim);
    const auto part = [&](std::int64_t p) { return partials.data() + (p * rows + row) * stride; };
    float maximum = kNever;
    for (std::int64_t p = 0; p < parts; ++p) maximum = std::max(maximum, part(p)[head_dim]);
    std::fill(merged.output.begin(), merged.output.end(), 0.0f);
    *merged.maximum = maximum;
    *merged.sum = 0;
    if (maximum == kNever) continue;
    for (std::int64_t p = 0; p < parts; ++p) {
      const float* from = part(p);
      const float weight = std::exp(from[head_dim] - maximum);
      for (int d = 0; d < head_dim; ++d)
        merged.output[static_cast<std::size_t>(d)] += weight * from[d];
      *merged.sum += weight * from[head_dim + 1];
    }
  }
}

void finish_partials(std::span<const float> partials, std::int64_t rows, int head_dim,
                     std::span<float> outputs, std::span<float> log_sum_exp) {
  finish(partials, rows, head_dim, log_sum_exp,
         [&](std::size_t at, float value) { outputs[at] = value; });
}

void finish_partials(std::span<const float> partials, std::int64_t rows, int head_dim,
                     NumberFormat number, std::span<std::uint16_t> outputs,
                     std::span<float> log_sum_exp) {
  finish(partials, rows, head_dim, log_sum_exp,
         [&](std::size_t at, float value) { outputs[at] = to_16bit(value, number); });
}

}  // namespace modalkv
