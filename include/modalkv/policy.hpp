// A precision policy: which tokens may be stored how, and where. It grants permissions; the planner
// uses them when they pay. With room for everything in 16 bits, every policy that allows 16 bits on
// the GPU runs exactly like 16-bit resident.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "modalkv/format.hpp"
#include "modalkv/units.hpp"

namespace modalkv {

/// Which tokens belong to the high-precision budget of ceil(keep x T) tokens.
enum class Selection : std::uint8_t {
  all,            ///< every token: nothing may be compressed
  none,           ///< no token: uniform compression
  text_centric,   ///< pins, recent window, prompt text, then visual tokens by attention mass
  image_centric,  ///< pins, recent window, visual tokens by attention mass, then text
};

constexpr std::string_view name(Selection selection) {
  constexpr std::string_view names[] = {"all", "none", "text-centric", "image-centric"};
  return names[static_cast<std::uint8_t>(selection)];
}

/// Where KV may live and who may attend to it.
struct PlacePermissions {
  bool resident = true;   ///< in GPU memory
  bool streamed = false;  ///< in pinned host memory, copied to staging each step
  bool cpu = false;       ///< in host memory, attended there
};

/// What leaves first where kept content does not fit.
enum class EvictionPolicy : std::uint8_t {
  lru,        ///< least recently used first
  tiny_lfu,   ///< W-TinyLFU: what a frequency sketch saw less often
  cost_aware  ///< least reload time saved a byte, by uses, size, modality and format
};

constexpr std::string_view name(EvictionPolicy policy) {
  constexpr std::string_view names[] = {"lru", "tiny-lfu", "cost-aware"};
  return names[static_cast<std::uint8_t>(policy)];
}

struct PrecisionPolicy {
  std::string name;
  std::string summary;
  Selection selection = Selection::all;
  double keep = 1.0;                     ///< share of tokens in the high-precision budget
  KvFormat high = both(fp16());          ///< of the budget, and of everything while there is room
  std::optional<KvFormat> text_low{};    ///< text beyond the budget may be stored so
  std::optional<KvFormat> visual_low{};  ///< visual tokens beyond the budget may be stored so
  PlacePermissions places{};
  Tokens pinned_tokens = 4;   ///< first tokens of a sequence, always high
  Tokens window_tokens = 64;  ///< most recent tokens, always high
  int high_first_layers = 0;  ///< layers at the bottom that stay high throughout
  int high_last_layers = 0;   ///< and at the top
};

}  // namespace modalkv
