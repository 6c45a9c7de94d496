// Ids of a trace file as 256-bit content ids, and back.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "modalkv/token.hpp"

namespace modalkv {

/// Distinct for distinct numbers; the number is its first word.
ContentId content_id(std::uint64_t number);
/// Of a file's string id: 64 hexadecimal digits stand for themselves; anything else is hashed to
/// all 256 bits.
ContentId content_id(std::string_view text);
/// JSON that reads back as `id`: the number where it came from one, else 64 hexadecimal digits in
/// quotes.
std::string content_id_json(const ContentId& id);

}  // namespace modalkv
