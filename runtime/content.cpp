#include "modalkv/content.hpp"

#include <openssl/evp.h>

#include <bit>
#include <cstddef>
#include <memory>

#include "modalkv/error.hpp"

namespace modalkv {
namespace {

static_assert(std::endian::native == std::endian::little, "ids are little-endian");

using Words = std::array<std::uint64_t, 4>;

class Sha256 {
 public:
  explicit Sha256(std::string_view domain) : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
    require(context_ != nullptr && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
    add(domain.data(), domain.size());
  }

  void add(const void* data, std::size_t bytes) {
    require(EVP_DigestUpdate(context_.get(), data, bytes) == 1);
  }
  void add(const Words& words) { add(words.data(), sizeof words); }
  void add(std::uint64_t number) { add(&number, sizeof number); }

  Words digest() {
    std::array<unsigned char, sizeof(Words)> bytes{};
    require(EVP_DigestFinal_ex(context_.get(), bytes.data(), nullptr) == 1);
    return std::bit_cast<Words>(bytes);
  }

 private:
  static void require(bool done) {
    if (!done) throw Error("SHA-256: libcrypto failed, expected an OpenSSL that offers it");
  }

  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

}  // namespace

ContentId content_of_tokens(std::span<const std::int32_t> token_ids) {
  Sha256 hash("modalkv.tokens.1");
  hash.add(token_ids.size());
  hash.add(token_ids.data(), token_ids.size_bytes());
  return {hash.digest()};
}

std::optional<PrefixId> chain(const PrefixId& before, const Segment& segment,
                              std::string_view kv_tag) {
  if (segment.content.is_unique()) return std::nullopt;
  const auto token_class = static_cast<std::uint8_t>(segment.token_class);
  Sha256 hash("modalkv.prefix.1");
  hash.add(before.words);
  hash.add(segment.content.words);
  hash.add(&token_class, sizeof token_class);
  hash.add(static_cast<std::uint64_t>(segment.tokens));
  hash.add(kv_tag.size());
  hash.add(kv_tag.data(), kv_tag.size());
  return PrefixId{hash.digest()};
}

std::vector<PrefixId> chain(std::span<const Segment> segments, std::string_view kv_tag) {
  std::vector<PrefixId> ids;
  ids.reserve(segments.size());
  PrefixId before;
  for (const Segment& segment : segments) {
    const std::optional<PrefixId> id = chain(before, segment, kv_tag);
    if (!id) break;
    ids.push_back(before = *id);
  }
  return ids;
}

}  // namespace modalkv
