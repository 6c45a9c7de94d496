// Where each element of a page lies: the same bytes on the host and on a GPU.
//
//   page      | payload of head 0 | head 1 | ... | metadata of head 0 | ... | padding | trailer |
//   payload   | K: lines of 16 tokens x depth | V: lines of 16 channels x depth |
//   metadata  | K: scales, zeros | V: scales, zeros |
//
// A line is 64 bytes: 16 words of 32 bits, one a row. In K a row is a token and depth runs over
// the head's dimensions; in V a row is a channel and depth runs over tokens. So 16 lanes of a dot
// product are 16 rows, nothing is summed across lanes, and one load serves every query head of the
// group; on a GPU the 16 rows are the M side of an mma. A word holds 32 / bits elements of
// consecutive depth: element e sits in half e % 2, at bit bits * (e / 2) of it. One shift and mask
// (or table look-up) of all words therefore yields pairs of neighbours as 16-bit operands, which is
// what both vdpbf16ps and the GPU's half2 arithmetic take.
//
// Payload comes first so that its lines are aligned to cache lines whatever the metadata.
#pragma once

#include "modalkv/page.hpp"

namespace modalkv {

inline constexpr int kLineRows = 16;
inline constexpr Bytes kLineBytes = 64;

/// The trailer, the last kPageTrailerBytes of a page. The checksum is of all bytes before it.
inline constexpr Bytes kTrailerContentId = 0;    ///< 32 bytes
inline constexpr Bytes kTrailerGeneration = 32;  ///< 64 bits
inline constexpr Bytes kTrailerTokens = 40;      ///< 32 bits: tokens in use
inline constexpr Bytes kTrailerChecksum = 56;    ///< 64 bits

/// An element's word, by its offset from the begin of the page, and its lowest bit in it.
struct ElementPlace {
  Bytes word = 0;
  int bit = 0;
};

/// Depth positions of a word.
constexpr int word_elements(const ElementFormat& format) {
  return 32 / payload_bits(format.number);
}

/// Lowest bit of the `element`-th depth position of a word.
constexpr int bit_of(const ElementFormat& format, int element) {
  return 16 * (element % 2) + payload_bits(format.number) * (element / 2);
}

/// Elements that share a scale: of a vector, or with `per_channel` tokens of a channel.
constexpr std::int64_t group_elements(const ElementFormat& format, const PageShape& shape) {
  if (format.group > 0) return format.group;
  return format.per_channel ? shape.tokens : shape.head_dim;
}

/// Offsets from the begin of a page. Tokens of the page are a multiple of 16, and so is head_dim.
class PageLayout {
 public:
  explicit constexpr PageLayout(const PageShape& shape)
      : shape_(shape),
        key_payload_(side_payload(shape.format.key)),
        value_payload_(side_payload(shape.format.value)),
        key_metadata_(page_metadata_bytes(shape.format.key, shape) / shape.kv_heads),
        value_metadata_(page_metadata_bytes(shape.format.value, shape) / shape.kv_heads) {}

  /// First line of K and of V of a head.
  constexpr Bytes key_lines(int head) const { return head * (key_payload_ + value_payload_); }
  constexpr Bytes value_lines(int head) const { return key_lines(head) + key_payload_; }

  constexpr ElementPlace key(int head, Tokens token, int dim) const {
    const ElementFormat& format = shape_.format.key;
    const int deep = word_elements(format);
    const Bytes line = token / kLineRows * (shape_.head_dim / deep) + dim / deep;
    return {key_lines(head) + line * kLineBytes + token % kLineRows * 4,
            bit_of(format, dim % deep)};
  }

  constexpr ElementPlace value(int head, Tokens token, int dim) const {
    const ElementFormat& format = shape_.format.value;
    const int deep = word_elements(format);
    const Bytes line = dim / kLineRows * (shape_.tokens / deep) + token / deep;
    return {value_lines(head) + line * kLineBytes + dim % kLineRows * 4,
            bit_of(format, static_cast<int>(token % deep))};
  }

  /// First byte of the metadata of K and of V of a head.
  constexpr Bytes key_metadata(int head) const {
    return shape_.kv_heads * (key_payload_ + value_payload_) +
           head * (key_metadata_ + value_metadata_);
  }
  constexpr Bytes value_metadata(int head) const { return key_metadata(head) + key_metadata_; }

  /// Scale of an element's group, from the begin of its side's metadata. Per token: for each 16
  /// tokens and group of channels, 16 scales, then 16 zeros. Per channel: for each group of tokens,
  /// a scale for each channel, then the zeros.
  constexpr Bytes scale(const ElementFormat& format, Tokens token, int dim) const {
    const Bytes pair = format.scale_bytes + format.zero_bytes;
    const std::int64_t group = group_elements(format, shape_);
    if (format.per_channel)
      return token / group * shape_.head_dim * pair + Bytes{dim} * format.scale_bytes;
    const Bytes groups = divide_up(shape_.head_dim, group);
    return (token / kLineRows * groups + dim / group) * kLineRows * pair +
           token % kLineRows * format.scale_bytes;
  }

  /// The zero of the same group.
  constexpr Bytes zero(const ElementFormat& format, Tokens token, int dim) const {
    const Bytes pair = format.scale_bytes + format.zero_bytes;
    const std::int64_t group = group_elements(format, shape_);
    if (format.per_channel)
      return token / group * shape_.head_dim * pair + Bytes{shape_.head_dim} * format.scale_bytes +
             Bytes{dim} * format.zero_bytes;
    const Bytes groups = divide_up(shape_.head_dim, group);
    return (token / kLineRows * groups + dim / group) * kLineRows * pair +
           kLineRows * format.scale_bytes + token % kLineRows * format.zero_bytes;
  }

  constexpr Bytes trailer() const { return page_bytes(shape_) - kPageTrailerBytes; }
  constexpr const PageShape& shape() const { return shape_; }

 private:
  constexpr Bytes side_payload(const ElementFormat& format) const {
    return page_payload_bytes(format, shape_) / shape_.kv_heads;
  }

  PageShape shape_;
  Bytes key_payload_, value_payload_, key_metadata_, value_metadata_;  // of a head
};

}  // namespace modalkv
