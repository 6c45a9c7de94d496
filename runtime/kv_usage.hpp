// How much memory KV takes, by where it lies and what it is.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "modalkv/format.hpp"
#include "modalkv/units.hpp"

namespace modalkv {

enum class Tier : std::uint8_t { device, host, disk };

constexpr std::string_view name(Tier tier) {
  constexpr std::string_view names[] = {"device", "host", "disk"};
  return names[static_cast<std::uint8_t>(tier)];
}

enum class Modality : std::uint8_t {
  text,    ///< image tokens that are kept in high precision included
  visual,  ///< pages of images
};

constexpr std::string_view name(Modality modality) {
  constexpr std::string_view names[] = {"text", "visual"};
  return names[static_cast<std::uint8_t>(modality)];
}

/// Pages of a kind in a place.
struct PageUsage {
  Tier tier = Tier::device;
  int node = 0;  ///< of host memory
  Modality modality = Modality::text;
  KvFormat format{};
  std::int64_t pages = 0;
  Bytes bytes = 0;
};

/// Room for pages. What is used and not retired is what the pages take.
struct PoolUsage {
  Tier tier = Tier::device;
  int node = 0;
  Bytes capacity_bytes = 0;
  Bytes used_bytes = 0;     ///< retired ones included
  Bytes retired_bytes = 0;  ///< given up, and free once nothing in flight touches them
  Bytes idle_bytes = 0;     ///< of kept content that no sequence uses
};

struct KvUsage {
  std::vector<PageUsage> pages{};  ///< each kind in each place once
  std::vector<PoolUsage> pools{};
  std::int64_t running_sequences = 0, paused_sequences = 0;
  std::int64_t blocks = 0;
  std::int64_t kept_segments = 0;  ///< of known content, in use or not
  Bytes kept_bytes = 0;            ///< as small as they may become
  std::int64_t groups_in_flight = 0;
  std::int64_t wishes = 0;  ///< parts of blocks that are not where they should be
  Bytes reserved_bytes = 0;
};

}  // namespace modalkv
