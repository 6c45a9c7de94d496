#include "tools/bench/kv_copies.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "modalkv/error.hpp"
#include "tools/bench/random_rows.hpp"

namespace modalkv {
namespace {

constexpr int kMostDistinctPages = 16;

Bytes page_count(const PageShape& shape, std::span<const Tokens> lengths) {
  Bytes pages = 0;
  for (const Tokens length : lengths) pages += divide_up(length, shape.tokens);
  return pages;
}

// Payload and metadata of the tiles of `tokens` tokens.
Bytes bytes_of_tokens(const PageShape& shape, Tokens tokens) {
  const auto side = [&](const ElementFormat& format) {
    const Bytes metadata = page_metadata_bytes(format, shape);
    const Bytes payload = page_payload_bytes(format, shape);
    const Tokens full = tokens / shape.tokens;
    const Tokens rest = round_up(tokens % shape.tokens, 16);
    return full * (payload + metadata) +
           (payload + (format.per_channel ? 0 : metadata)) * rest / shape.tokens +
           (format.per_channel && rest > 0 ? metadata : 0);
  };
  return side(shape.format.key) + side(shape.format.value);
}

std::vector<std::byte> random_page(const PageShape& shape, NumberFormat input,
                                   std::mt19937_64& random) {
  const auto row = std::int64_t{shape.kv_heads} * shape.head_dim;
  const auto count = static_cast<std::size_t>(shape.tokens * row);
  const auto keys = random_elements(count, input, 1, random);
  const auto values = random_elements(count, input, 1, random);
  std::vector<std::byte> page(static_cast<std::size_t>(page_bytes(shape)));
  const PageTrailer trailer{
      {{random(), random(), random(), random()}}, 0, static_cast<std::uint32_t>(shape.tokens)};
  const EncodeResult result =
      encode_page(shape, {keys.data(), row, shape.head_dim, input},
                  {values.data(), row, shape.head_dim, input}, trailer, TensorScales{}, page);
  if (result.status != Status::ok)
    throw Error(fmt::format("random {} cannot be encoded: {}, head {}, token {}",
                            result.in_values ? "values" : "keys", name(result.status), result.head,
                            result.token));
  return page;
}

}  // namespace

KvCopies::KvCopies(const PageShape& shape, NumberFormat input, std::span<const Tokens> lengths,
                   int copies, std::uint64_t seed)
    : shape_(shape),
      lengths_(lengths.begin(), lengths.end()),
      memory_(bytes(shape, lengths, copies)) {
  std::size_t count = 0;
  for (const Tokens length : lengths) {
    first_page_.push_back(count);
    count += static_cast<std::size_t>(divide_up(length, shape.tokens));
    bytes_read_ += bytes_of_tokens(shape, length);
  }
  first_page_.push_back(count);

  std::mt19937_64 random(seed);
  std::vector<std::vector<std::byte>> distinct;
  const auto elements = static_cast<std::size_t>(shape.tokens * shape.kv_heads * shape.head_dim);
  for (std::size_t i = 0; i < std::min(count, std::size_t{kMostDistinctPages}); ++i) {
    distinct.push_back(random_page(shape, input, random));
    keys_.emplace_back(elements);
    values_.emplace_back(elements);
    decode_keys(shape, distinct.back(), TensorScales{}, keys_.back());
    decode_values(shape, distinct.back(), TensorScales{}, values_.back());
  }

  std::byte* to = memory_.bytes().data();
  for (int copy = 0; copy < copies; ++copy)
    for (std::size_t page = 0; page < count; ++page, to += page_bytes(shape)) {
      const std::vector<std::byte>& from = distinct[page % distinct.size()];
      std::memcpy(to, from.data(), from.size());
      pages_.push_back(to);
    }
}

Bytes KvCopies::bytes(const PageShape& shape, std::span<const Tokens> lengths, int copies) {
  return page_count(shape, lengths) * page_bytes(shape) * copies;
}

Bytes KvCopies::reference_bytes(const PageShape& shape, std::span<const Tokens> lengths) {
  const Bytes pages = std::min(page_count(shape, lengths), Bytes{kMostDistinctPages});
  const Bytes side_elements = shape.tokens * shape.kv_heads * shape.head_dim;
  return pages * (page_bytes(shape) + 2 * side_elements * Bytes{sizeof(float)});
}

PageList KvCopies::list(int copy, std::size_t sequence) const {
  const std::size_t first = first_page_[sequence], end = first_page_[sequence + 1];
  const auto all = std::span(pages_).subspan(static_cast<std::size_t>(copy) * first_page_.back());
  return {shape_, TensorScales{}, all.subspan(first, end - first), lengths_[sequence], {}, {}};
}

std::span<const float> KvCopies::decoded(const Decoded& pages, std::size_t sequence, Tokens token,
                                         int head) const {
  const std::size_t page = first_page_[sequence] + static_cast<std::size_t>(token / shape_.tokens);
  const auto row = static_cast<std::size_t>(token % shape_.tokens * shape_.kv_heads + head);
  const auto dim = static_cast<std::size_t>(shape_.head_dim);
  return std::span(pages[page % pages.size()]).subspan(row * dim, dim);
}

}  // namespace modalkv
