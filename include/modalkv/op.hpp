// An operation is a value: what is to be done to which bytes, and nothing about when, where or how.
// A device performs operations (offload/device.hpp); kernels/effects.hpp says what they mean.
//
// An address is (space, offset, bytes), never a pointer. Operations hold no lists: what varies in
// length (pages, sequences) lies in a table in a space that the device can see.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <type_traits>
#include <variant>

#include "modalkv/page.hpp"
#include "modalkv/rope.hpp"
#include "modalkv/token.hpp"
#include "modalkv/units.hpp"

namespace modalkv {

/// Memory that a device knows: a GPU slab, a pinned slab on a NUMA node, a file.
struct SpaceId {
  std::uint16_t index = 0;

  friend constexpr bool operator==(SpaceId, SpaceId) = default;
};

struct Address {
  SpaceId space{};
  Bytes offset = 0;
  Bytes bytes = 0;

  friend constexpr bool operator==(const Address&, const Address&) = default;
};

constexpr bool overlap(const Address& a, const Address& b) {
  return a.space == b.space && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
}

/// Copies bytes; the two must be as long as each other and apart.
struct Copy {
  Address from, to;
};

struct Fill {
  Address to;
  std::uint8_t value = 0;
};

/// Writes the 8-byte checksum of `of` (kernels/checksum.hpp) to `to`.
struct Checksum {
  Address of, to;
};

/// Ends in Status::checksum where `expected`, 8 bytes, is not the checksum of `of`.
struct Verify {
  Address of, expected;
};

/// Ends in Status::checksum where a page is not what was encoded, or not the page that it should
/// be: content and generation are those in its trailer.
struct VerifyPage {
  Address page;
  ContentId content{};
  std::uint64_t generation = 0;
};

/// A bias that all keys carry before RoPE and that pages of fewer than 16 bits leave out
/// (kernels/key_bias.hpp). No bytes: none, keys are stored whole.
struct KeyBiasAddress {
  Address elements{};     ///< 32-bit floats [kv_heads, head_dim]
  Address frequencies{};  ///< of RoPE, 32-bit floats [head_dim / 2]
  Address positions{};    ///< of RoPE, 32-bit integers [tokens, axes]
  RopeSections sections{};
};

/// 16-bit rows [tokens, kv_heads, head_dim] of K and of V become one page with its checksum. Ends
/// in Status::rejected where an element is not finite or beyond the format.
struct Encode {
  Address keys, values, page;
  PageShape shape{};
  Tokens tokens = 0;  ///< in [1, shape.tokens]: the last page of a sequence may be partial
  NumberFormat input = NumberFormat::fp16;  ///< of the rows: fp16 or bf16
  float key_scale = 1, value_scale = 1;     ///< of formats without a stored scale
  ContentId content{};
  std::uint64_t generation = 0;
  KeyBiasAddress key_bias{};
};

/// 16-bit rows [tokens, kv_heads, head_dim] of K and of V become tokens [first, first + tokens) of
/// an open page of 16-bit numbers; `first` 0 opens it. Ends in Status::rejected where an element is
/// not finite or beyond the format.
struct Append {
  Address keys, values, page;
  PageShape shape{};
  Tokens first = 0, tokens = 0;
  NumberFormat input = NumberFormat::fp16;  ///< of the rows: fp16 or bf16
};

/// Gives an open page its trailer and checksum. Tokens from `tokens` on are cut off.
struct Close {
  Address page;
  PageShape shape{};
  Tokens tokens = 0;
  ContentId content{};
  std::uint64_t generation = 0;
};

/// The first `tokens` tokens of a page become 16-bit rows [tokens, kv_heads, head_dim] of K and of
/// V again. Ends in Status::checksum where the page is not what was encoded, or holds fewer tokens.
struct Decode {
  Address page, keys, values;
  PageShape shape{};
  Tokens tokens = 0;
  NumberFormat output = NumberFormat::fp16;  ///< of the rows: fp16 or bf16
  float key_scale = 1, value_scale = 1;      ///< of formats without a stored scale
  KeyBiasAddress key_bias{};                 ///< as the page was encoded
};

/// Attention of 16-bit queries [query_tokens, query_heads, head_dim] over the first `tokens` tokens
/// of a list of pages; writes a partial a row (see `partial_bytes`). Ends in Status::rejected where
/// the page table points out of `pages`.
struct Attend {
  Address queries;
  Address pages;  ///< the part of a space in which all listed pages lie; all of it counts as read
  Address page_table;  ///< a 64-bit offset into `pages` for each page, in order
  Address partials;
  PageShape shape{};
  Tokens tokens = 0;
  std::int32_t query_heads = 0;  ///< a multiple of the page's KV heads
  std::int32_t query_tokens = 0;
  NumberFormat input = NumberFormat::fp16;  ///< of the queries: fp16 or bf16
  float logit_scale = 1;
  float key_scale = 1, value_scale = 1;  ///< of formats without a stored scale
  /// 32-bit positions of the query tokens and of the pages' tokens. No bytes: all KV is visible.
  Address query_positions{}, token_positions{};
  Address hidden{};         ///< a bit a token, 64 a word: not attended to; no bytes: none is hidden
  std::int32_t window = 0;  ///< where there are positions: only the last so many; 0: all
  KeyBiasAddress key_bias{};  ///< as the pages were encoded
};

/// Merges `parts` partials of the same rows exactly, by log-sum-exp. They lie one after another.
struct Merge {
  Address partials, to;
  std::int32_t parts = 0;
  std::int32_t rows = 0;
  std::int32_t head_dim = 0;
};

/// The attention that partials stand for: 16-bit outputs [rows, head_dim]; zeros for a row that
/// saw no token.
struct Finish {
  Address partials, outputs;
  Address log_sum_exp{};  ///< 32-bit floats [rows]; no bytes: not wanted
  std::int32_t rows = 0;
  std::int32_t head_dim = 0;
  NumberFormat output = NumberFormat::fp16;  ///< fp16 or bf16
};

/// How much probe queries attend to each of the first `tokens` tokens of a list of pages: the mean
/// attention probability over the probe rows [query_tokens, query_heads] that see the token, so
/// that tokens which more probes see are not favoured for that (ZipCache, He et al. 2024). 0 for a
/// token that no probe sees. Ends in Status::rejected where the page table points out of `pages`.
struct Score {
  Address queries;
  Address pages;       ///< as in Attend
  Address page_table;  ///< as in Attend
  /// Of the same rows over all KV that they see, in this list and elsewhere: Attend's result,
  /// merged where there are several lists. Gives each row's maximum and sum.
  Address partials;
  Address scores;   ///< 32-bit floats, one a token
  Address scratch;  ///< score_scratch_bytes; what it holds afterwards is undefined
  PageShape shape{};
  Tokens tokens = 0;
  std::int32_t query_heads = 0;  ///< a multiple of the page's KV heads
  std::int32_t query_tokens = 0;
  NumberFormat input = NumberFormat::fp16;  ///< of the queries: fp16 or bf16
  float logit_scale = 1;
  float key_scale = 1;                           ///< of formats without a stored scale
  Address query_positions{}, token_positions{};  ///< as in Attend
  Address hidden{};                              ///< as in Attend; a hidden token's score is 0
  std::int32_t window = 0;                       ///< as in Attend
  KeyBiasAddress key_bias{};                     ///< as in Attend
};

/// Time that the engine's own kernels take on a queue. Only virtual time can spend it: on a real
/// device the engine's work arrives as an event.
struct EngineWork {
  Nanos duration_ns = 0;
};

using Op = std::variant<Copy, Fill, Checksum, Verify, VerifyPage, Encode, Append, Close, Decode,
                        Attend, Merge, Finish, Score, EngineWork>;

static_assert(std::is_trivially_copyable_v<Op>, "an operation is a plain value");

inline constexpr Bytes kChecksumBytes = 8;
inline constexpr Bytes kPageTableEntryBytes = 8;

/// Bytes of a partial: for each row head_dim outputs, the maximum and the sum, as 32-bit floats.
constexpr Bytes partial_bytes(std::int64_t rows, int head_dim) {
  return rows * (head_dim + 2) * 4;
}

/// Bytes that scoring works in: the decoded keys of a page, as 32-bit floats.
constexpr Bytes score_scratch_bytes(const PageShape& shape) {
  return shape.tokens * shape.kv_heads * shape.head_dim * 4;
}

constexpr std::string_view name(const Op& op) {
  constexpr std::string_view names[] = {"copy",   "fill",   "checksum", "verify",     "verify page",
                                        "encode", "append", "close",    "decode",     "attend",
                                        "merge",  "finish", "score",    "engine work"};
  return names[op.index()];
}

/// What an operation asks of the processor and the memory that perform it.
struct OpCost {
  Bytes read_bytes = 0;
  Bytes written_bytes = 0;
  double flops = 0;
};

/// A part of a space that an operation reads or writes.
struct Access {
  Address where;
  bool writes = false;
};

/// The accesses of one operation, in no order.
class Accesses {
 public:
  constexpr Accesses& reads(const Address& where) { return add({where, false}); }
  constexpr Accesses& writes(const Address& where) { return add({where, true}); }
  /// Of what may be missing: no bytes.
  constexpr Accesses& reads_any(const Address& where) {
    return where.bytes == 0 ? *this : reads(where);
  }
  constexpr Accesses& writes_any(const Address& where) {
    return where.bytes == 0 ? *this : writes(where);
  }
  constexpr Accesses& reads_any(const KeyBiasAddress& bias) {
    return reads_any(bias.elements).reads_any(bias.frequencies).reads_any(bias.positions);
  }
  constexpr const Access* begin() const { return items_.data(); }
  constexpr const Access* end() const { return items_.data() + count_; }

 private:
  constexpr Accesses& add(const Access& access) {
    items_[count_++] = access;
    return *this;
  }

  std::array<Access, 12> items_{};
  std::size_t count_ = 0;
};

namespace detail {
template <typename... Functions>
struct Overloaded : Functions... {
  using Functions::operator()...;
};
template <typename... Functions>
Overloaded(Functions...) -> Overloaded<Functions...>;  // clang before 17 asks for it
}  // namespace detail

constexpr Accesses accesses(const Op& op) {
  return std::visit(
      detail::Overloaded{
          [](const Copy& copy) { return Accesses{}.reads(copy.from).writes(copy.to); },
          [](const Fill& fill) { return Accesses{}.writes(fill.to); },
          [](const Checksum& sum) { return Accesses{}.reads(sum.of).writes(sum.to); },
          [](const Verify& verify) { return Accesses{}.reads(verify.of).reads(verify.expected); },
          [](const VerifyPage& verify) { return Accesses{}.reads(verify.page); },
          [](const Encode& encode) {
            return Accesses{}
                .reads(encode.keys)
                .reads(encode.values)
                .reads_any(encode.key_bias)
                .writes(encode.page);
          },
          [](const Append& append) {
            return Accesses{}.reads(append.keys).reads(append.values).writes(append.page);
          },
          [](const Close& close) { return Accesses{}.writes(close.page); },
          [](const Decode& decode) {
            return Accesses{}
                .reads(decode.page)
                .reads_any(decode.key_bias)
                .writes(decode.keys)
                .writes(decode.values);
          },
          [](const Attend& attend) {
            return Accesses{}
                .reads(attend.queries)
                .reads(attend.pages)
                .reads(attend.page_table)
                .reads_any(attend.query_positions)
                .reads_any(attend.token_positions)
                .reads_any(attend.hidden)
                .reads_any(attend.key_bias)
                .writes(attend.partials);
          },
          [](const Merge& merge) { return Accesses{}.reads(merge.partials).writes(merge.to); },
          [](const Finish& finish) {
            return Accesses{}
                .reads(finish.partials)
                .writes(finish.outputs)
                .writes_any(finish.log_sum_exp);
          },
          [](const Score& score) {
            return Accesses{}
                .reads(score.queries)
                .reads(score.pages)
                .reads(score.page_table)
                .reads(score.partials)
                .reads_any(score.query_positions)
                .reads_any(score.token_positions)
                .reads_any(score.hidden)
                .reads_any(score.key_bias)
                .writes(score.scores)
                .writes(score.scratch);
          },
          [](const EngineWork&) { return Accesses{}; }},
      op);
}

/// Whether nothing stays of what was where it writes.
constexpr bool overwrites(const Op& op) {
  if (const auto* append = std::get_if<Append>(&op)) return append->first == 0;
  return !std::holds_alternative<Close>(op);
}

constexpr OpCost cost(const Op& op) {
  return std::visit(
      detail::Overloaded{
          [](const Copy& copy) {
            return OpCost{copy.from.bytes, copy.to.bytes, 0};
          },
          [](const Fill& fill) {
            return OpCost{0, fill.to.bytes, 0};
          },
          [](const Checksum& sum) {
            return OpCost{sum.of.bytes, sum.to.bytes, 0};
          },
          [](const Verify& verify) {
            return OpCost{verify.of.bytes, 0, 0};
          },
          [](const VerifyPage& verify) {
            return OpCost{verify.page.bytes, 0, 0};
          },
          [](const Encode& encode) {
            return OpCost{encode.keys.bytes + encode.values.bytes, encode.page.bytes, 0};
          },
          [](const Append& append) {
            const Bytes rows_bytes = append.keys.bytes + append.values.bytes;
            return OpCost{rows_bytes, append.first == 0 ? append.page.bytes : rows_bytes, 0};
          },
          [](const Close& close) {
            return OpCost{close.page.bytes, kPageTrailerBytes, 0};
          },
          [](const Decode& decode) {
            return OpCost{decode.page.bytes, decode.keys.bytes + decode.values.bytes, 0};
          },
          [](const Attend& attend) {
            const PageShape& shape = attend.shape;
            const Bytes token_bytes =
                shape.kv_heads * token_head_bytes(shape.format, shape.head_dim);
            // A multiply and an add an element, for the scores and for the weighted values.
            const double flops = 4.0 * static_cast<double>(attend.tokens) * attend.query_tokens *
                                 attend.query_heads * shape.head_dim;
            // Queries and partials stay in caches.
            return OpCost{attend.tokens * token_bytes, 0, flops};
          },
          [](const Merge& merge) {
            return OpCost{merge.partials.bytes, merge.to.bytes,
                          3.0 * merge.parts * merge.rows * merge.head_dim};
          },
          [](const Finish& finish) {
            return OpCost{finish.partials.bytes, finish.outputs.bytes + finish.log_sum_exp.bytes,
                          1.0 * finish.rows * finish.head_dim};
          },
          [](const Score& score) {
            const PageShape& shape = score.shape;
            const Bytes key_bytes = shape.kv_heads * vector_bytes(shape.format.key, shape.head_dim);
            const double flops = 2.0 * static_cast<double>(score.tokens) * score.query_tokens *
                                 score.query_heads * shape.head_dim;
            // Of K alone; queries, partials and scratch stay in caches.
            return OpCost{score.tokens * key_bytes, score.scores.bytes, flops};
          },
          [](const EngineWork&) { return OpCost{}; }},
      op);
}

}  // namespace modalkv
