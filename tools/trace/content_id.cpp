#include "tools/trace/content_id.hpp"

#include <fmt/format.h>

#include <charconv>

#include "scheduler/split_mix.hpp"

namespace modalkv {
ContentId content_id(std::uint64_t number) {
  // The last word is never 0, so that number 0 is not the unique id.
  return {{number, split_mix(number + 0x9e3779b97f4a7c15u),
           split_mix(number + 2 * 0x9e3779b97f4a7c15u),
           split_mix(number + 3 * 0x9e3779b97f4a7c15u) | 1}};
}

ContentId content_id(std::string_view text) {
  ContentId id;
  if (text.size() == 64) {
    bool hex = true;
    for (std::size_t word = 0; word < 4 && hex; ++word) {
      const char* first = text.data() + 16 * word;
      const auto result = std::from_chars(first, first + 16, id.words[word], 16);
      hex = result.ec == std::errc() && result.ptr == first + 16;
    }
    if (hex && !id.is_unique()) return id;
  }
  for (std::size_t word = 0; word < 4; ++word) {
    std::uint64_t hash = split_mix(text.size() + (word + 1) * 0x9e3779b97f4a7c15u);
    for (const char c : text)
      hash = split_mix(hash ^ static_cast<unsigned char>(c)) + 0x9e3779b97f4a7c15u;
    id.words[word] = hash;
  }
  id.words[3] |= 1;
  return id;
}

std::string content_id_json(const ContentId& id) {
  if (id == content_id(id.words[0]) && id.words[0] <= INT64_MAX)
    return fmt::format("{}", id.words[0]);
  return fmt::format("\"{:016x}{:016x}{:016x}{:016x}\"", id.words[0], id.words[1], id.words[2],
                     id.words[3]);
}

}  // namespace modalkv
