#include "offload/validate.hpp"

namespace modalkv {
namespace {

// Sizes that follow from an operation's own shape.
struct ShapeCheck {
  static constexpr const char* kBrokenBias = "a key bias without its frequencies or positions";
  static const char* unless(bool good, const char* complaint) { return good ? "" : complaint; }
  static bool aligned(const Address& address, Bytes to) { return address.offset % to == 0; }
  static bool is_whole(const KeyBiasAddress& bias, const PageShape& shape, Tokens tokens) {
    const Address& positions = bias.positions;
    if (bias.elements.bytes == 0) return bias.frequencies.bytes == 0 && positions.bytes == 0;
    return fits(bias.sections, shape.head_dim) &&
           bias.elements.bytes == Bytes{4} * shape.kv_heads * shape.head_dim &&
           bias.frequencies.bytes == Bytes{4} * shape.head_dim / 2 &&
           positions.bytes == 4 * tokens * bias.sections.axes() && aligned(bias.elements, 4) &&
           aligned(bias.frequencies, 4) && aligned(positions, 4);
  }

  const char* operator()(const Copy& copy) const {
    return unless(copy.from.bytes == copy.to.bytes, "source and destination differ in length");
  }
  const char* operator()(const Fill&) const { return ""; }
  const char* operator()(const Checksum& sum) const {
    return unless(sum.to.bytes == kChecksumBytes, "a checksum takes 8 bytes");
  }
  const char* operator()(const Verify& verify) const {
    return unless(verify.expected.bytes == kChecksumBytes, "a checksum takes 8 bytes");
  }
  const char* operator()(const VerifyPage& verify) const {
    if (!aligned(verify.page, kPageAlignmentBytes)) return "the page is not aligned to 64 bytes";
    return unless(
        verify.page.bytes >= kPageTrailerBytes && verify.page.bytes % kPageAlignmentBytes == 0,
        "no page has this length");
  }
  static const char* one_page(const Address& page, const PageShape& shape, Tokens tokens) {
    if (!is_page(shape)) return "no page has this shape";
    if (tokens < 1 || tokens > shape.tokens) return "tokens do not fit the page";
    if (page.bytes != page_bytes(shape)) return "the page's bytes are not its shape's";
    return unless(aligned(page, kPageAlignmentBytes), "the page is not aligned to 64 bytes");
  }
  // A page beside rows of K and V in 16 bits.
  static const char* page_and_rows(const Address& page, const Address& keys, const Address& values,
                                   const PageShape& shape, Tokens tokens, NumberFormat number) {
    if (const char* complaint = one_page(page, shape, tokens); *complaint != 0) return complaint;
    const Bytes rows_bytes = tokens * shape.kv_heads * shape.head_dim * 2;
    if (payload_bits(number) != 16) return "its rows are not of 16-bit numbers";
    if (!aligned(keys, 2) || !aligned(values, 2)) return "16-bit rows at odd bytes";
    return unless(keys.bytes == rows_bytes && values.bytes == rows_bytes,
                  "keys or values are not [tokens, kv_heads, head_dim] in 16 bits");
  }
  const char* operator()(const Encode& encode) const {
    if (!is_whole(encode.key_bias, encode.shape, encode.tokens)) return kBrokenBias;
    return page_and_rows(encode.page, encode.keys, encode.values, encode.shape, encode.tokens,
                         encode.input);
  }
  const char* operator()(const Append& append) const {
    if (append.first < 0 || append.first > append.shape.tokens - append.tokens)
      return "tokens do not fit the page";
    if (!is_16bit(append.shape.format)) return "only pages of 16-bit numbers can be open";
    return page_and_rows(append.page, append.keys, append.values, append.shape, append.tokens,
                         append.input);
  }
  const char* operator()(const Close& close) const {
    if (!is_16bit(close.shape.format)) return "only pages of 16-bit numbers can be open";
    return one_page(close.page, close.shape, close.tokens);
  }
  const char* operator()(const Decode& decode) const {
    if (!is_whole(decode.key_bias, decode.shape, decode.tokens)) return kBrokenBias;
    return page_and_rows(decode.page, decode.keys, decode.values, decode.shape, decode.tokens,
                         decode.output);
  }
  // What Attend and Score have in common: queries, and the pages that they see.
  template <typename OverPages>
  static const char* over_pages(const OverPages& op) {
    const PageShape& shape = op.shape;
    if (!is_page(shape)) return "no page has this shape";
    const std::int64_t rows = std::int64_t{op.query_tokens} * op.query_heads;
    if (op.tokens < 1 || rows < 1) return "no tokens or no queries";
    if (op.page_table.bytes != divide_up(op.tokens, shape.tokens) * kPageTableEntryBytes)
      return "the page table does not have an entry for each page";
    if (op.pages.bytes < page_bytes(shape)) return "less than a page to attend to";
    if (!aligned(op.queries, 2) || !aligned(op.partials, 4) || !aligned(op.query_positions, 4) ||
        !aligned(op.token_positions, 4) || !aligned(op.hidden, 8))
      return "queries, partials, positions or hidden bits are not aligned to their elements";
    if (op.query_heads % shape.kv_heads != 0) return "KV heads do not divide its query heads";
    if (payload_bits(op.input) != 16) return "its queries are not 16-bit numbers";
    if (op.query_positions.bytes != 0 && (op.query_positions.bytes != op.query_tokens * 4 ||
                                          op.token_positions.bytes != op.tokens * 4))
      return "positions are not those of each query and each token, in 32 bits";
    if (op.hidden.bytes != 0 && op.hidden.bytes != divide_up(op.tokens, 64) * 8)
      return "hidden tokens are not a bit for each";
    if (!is_whole(op.key_bias, shape, op.tokens)) return kBrokenBias;
    if (op.queries.bytes != rows * shape.head_dim * 2)
      return "queries are not [query_tokens, query_heads, head_dim] in 16 bits";
    return unless(op.partials.bytes == partial_bytes(rows, shape.head_dim),
                  "partials do not have a row for each query");
  }
  const char* operator()(const Attend& attend) const { return over_pages(attend); }
  const char* operator()(const Merge& merge) const {
    const Bytes part_bytes = partial_bytes(merge.rows, merge.head_dim);
    if (merge.parts < 1 || merge.rows < 1) return "nothing to merge";
    if (!aligned(merge.partials, 4) || !aligned(merge.to, 4)) return "partials at odd bytes";
    return unless(merge.partials.bytes == merge.parts * part_bytes && merge.to.bytes == part_bytes,
                  "partials are not `parts` times as long as the result");
  }
  const char* operator()(const Finish& finish) const {
    if (finish.rows < 1 || finish.head_dim < 1) return "nothing to finish";
    if (payload_bits(finish.output) != 16) return "its outputs are not 16-bit numbers";
    if (!aligned(finish.partials, 4) || !aligned(finish.outputs, 2) ||
        !aligned(finish.log_sum_exp, 4))
      return "partials or outputs are not aligned to their elements";
    if (finish.log_sum_exp.bytes != 0 && finish.log_sum_exp.bytes != Bytes{4} * finish.rows)
      return "not a logarithm for each row";
    return unless(finish.partials.bytes == partial_bytes(finish.rows, finish.head_dim) &&
                      finish.outputs.bytes == Bytes{2} * finish.rows * finish.head_dim,
                  "partials or outputs are not [rows, head_dim]");
  }
  const char* operator()(const Score& score) const {
    if (const char* complaint = over_pages(score); *complaint != 0) return complaint;
    if (!aligned(score.scores, 4) || !aligned(score.scratch, 4))
      return "32-bit floats at odd bytes";
    if (score.scores.bytes != score.tokens * 4) return "not a score for each token";
    return unless(score.scratch.bytes == score_scratch_bytes(score.shape),
                  "its scratch does not hold the keys of a page");
  }
  const char* operator()(const EngineWork& work) const {
    return unless(work.duration_ns >= 0, "a negative duration");
  }
};

}  // namespace

std::string why_malformed(const Op& op, std::span<const Bytes> space_bytes) {
  const auto of_op = [&](std::string_view what) {
    return std::string(name(op)) + ": " + std::string(what);
  };
  const Accesses all = accesses(op);
  for (const auto& [where, writes] : all) {
    if (where.space.index >= space_bytes.size())
      return of_op("space " + std::to_string(where.space.index) + " is not registered");
    const Bytes size = space_bytes[where.space.index];
    if (where.bytes <= 0 || where.offset < 0 || where.bytes > size ||
        where.offset > size - where.bytes)
      return of_op(std::to_string(where.bytes) + " bytes at " + std::to_string(where.offset) +
                   " are not inside space " + std::to_string(where.space.index) + " of " +
                   std::to_string(size) + " bytes");
  }
  for (const Access& write : all)
    for (const Access& other : all)
      if (write.writes && &write != &other && overlap(write.where, other.where))
        return of_op("it writes what it also reads");
  const std::string_view shape = std::visit(ShapeCheck{}, op);
  return shape.empty() ? "" : of_op(shape);
}

}  // namespace modalkv
