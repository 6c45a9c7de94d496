#include "offload/page_key.hpp"

#include <algorithm>
#include <array>

#include "kernels/checksum.hpp"
#include "offload/little_endian.hpp"

namespace modalkv {
namespace {

// content 32 | layer 4 | page 4 | tokens 2 | KV heads 2 | head_dim 2 | rotation 2 | K 6 | V 6 | 0 0
// 0 0
constexpr std::size_t kLayer = 32, kPage = 36, kTokens = 40, kHeads = 42, kDim = 44, kRotation = 46,
                      kKey = 48, kValue = 54, kZeros = 60;
constexpr int kMaxGroup = 0xffff;

void put_element(std::span<std::byte> to, std::size_t at, const ElementFormat& format) {
  put(to, at, static_cast<std::uint16_t>(format.group));
  put(to, at + 2, static_cast<std::uint8_t>(format.number));
  put(to, at + 3, static_cast<std::uint8_t>(format.scale_bytes));
  put(to, at + 4, static_cast<std::uint8_t>(format.zero_bytes));
  put(to, at + 5, static_cast<std::uint8_t>(format.per_channel));
}

// Every byte counts: what is not written like this is not read.
std::optional<ElementFormat> get_element(std::span<const std::byte> from, std::size_t at) {
  const auto number = get<std::uint8_t>(from, at + 2),
             per_channel = get<std::uint8_t>(from, at + 5);
  if (number > static_cast<std::uint8_t>(NumberFormat::mxfp4) || per_channel > 1)
    return std::nullopt;
  return ElementFormat{static_cast<NumberFormat>(number), get<std::uint16_t>(from, at),
                       get<std::uint8_t>(from, at + 3), get<std::uint8_t>(from, at + 4),
                       per_channel == 1};
}

}  // namespace

bool is_key(const PageKey& key) {
  return !key.content.is_unique() && key.layer >= 0 && key.page >= 0 && is_page(key.shape) &&
         key.shape.format.key.group <= kMaxGroup && key.shape.format.value.group <= kMaxGroup;
}

void write_key(const PageKey& key, std::span<std::byte, kPageKeyBytes> to) {
  put(to, 0, key.content.words);
  put(to, kLayer, key.layer);
  put(to, kPage, key.page);
  put(to, kTokens, static_cast<std::uint16_t>(key.shape.tokens));
  put(to, kHeads, static_cast<std::uint16_t>(key.shape.kv_heads));
  put(to, kDim, static_cast<std::uint16_t>(key.shape.head_dim));
  put(to, kRotation, static_cast<std::uint16_t>(key.shape.format.key_rotation));
  put_element(to, kKey, key.shape.format.key);
  put_element(to, kValue, key.shape.format.value);
  put(to, kZeros, std::uint32_t{0});
}

std::optional<PageKey> read_key(std::span<const std::byte, kPageKeyBytes> from) {
  const auto key_format = get_element(from, kKey), value_format = get_element(from, kValue);
  if (!key_format || !value_format || get<std::uint32_t>(from, kZeros) != 0) return std::nullopt;
  PageKey key;
  key.content.words = get<std::array<std::uint64_t, 4>>(from, 0);
  key.layer = get<std::int32_t>(from, kLayer);
  key.page = get<std::int32_t>(from, kPage);
  key.shape = {get<std::uint16_t>(from, kTokens),
               get<std::uint16_t>(from, kHeads),
               get<std::uint16_t>(from, kDim),
               {*key_format, *value_format, get<std::uint16_t>(from, kRotation)}};
  return is_key(key) ? std::optional(key) : std::nullopt;
}

std::size_t PageKeyHash::operator()(const PageKey& key) const {
  std::array<std::byte, kPageKeyBytes> bytes;
  write_key(key, bytes);
  return checksum(bytes);
}

}  // namespace modalkv
