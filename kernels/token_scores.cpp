#include "kernels/token_scores.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/query_rows.hpp"

namespace modalkv {
namespace {

constexpr int kTileTokens = kLineRows;  // which share the conversion of a query row
constexpr int kLanes = 16;              // divides head_dim

using Tile = std::array<float, kTileTokens>;

void decode_page_keys(const PageList& list, std::size_t page, std::span<float> keys) {
  const auto bytes = static_cast<std::size_t>(page_bytes(list.shape));
  KnownBias known = list.known_bias;
  if (known.bias != nullptr)
    known.positions =
        known.positions.subspan(page * static_cast<std::size_t>(list.shape.tokens) *
                                static_cast<std::size_t>(known.bias->sections.axes()));
  decode_keys(list.shape, {list.pages[page], bytes}, list.scales, keys, known);
}

float dot(const float* a, const float* b, int dims) {
  std::array<float, kLanes> sums{};
  for (int d = 0; d < dims; d += kLanes)
    for (int lane = 0; lane < kLanes; ++lane)
      sums[static_cast<std::size_t>(lane)] += a[d + lane] * b[d + lane];
  float sum = 0;
  for (const float lane : sums) sum += lane;
  return sum;
}

// The keys of one page and the rows that score them.
class PageScores {
 public:
  PageScores(const Queries& probes, const PageList& list, std::span<const float> partials,
             std::span<const float> keys, Tokens first)
      : probes_(probes), list_(list), partials_(partials), keys_(keys), first_(first) {}

  // Scores of `count` tokens from `begin` of the page.
  void add_tile(Tokens begin, int count, std::span<float> scores) const {
    Tile masses{};
    for (Tokens probe = 0; probe < probes_.tokens; ++probe)
      for (int head = 0; head < probes_.heads; ++head) add_row(probe, head, begin, count, masses);
    for (int t = 0; t < count; ++t) {
      const std::int64_t rows = seeing_probes(begin + t) * probes_.heads;
      if (rows > 0)
        scores[static_cast<std::size_t>(t)] +=
            masses[static_cast<std::size_t>(t)] / static_cast<float>(rows);
    }
  }

 private:
  void add_row(Tokens probe, int head, Tokens begin, int count, Tile& masses) const {
    const int dims = list_.shape.head_dim;
    const float* partial = partials_.data() + (probe * probes_.heads + head) * (dims + 2);
    const float maximum = partial[dims], sum = partial[dims + 1];
    if (!(sum > 0)) return;  // sees nothing
    std::array<float, kMaxHeadDim> query;
    load_query(probes_, probe, head, std::span(query).first(static_cast<std::size_t>(dims)));
    const int kv_heads = list_.shape.kv_heads;
    const int kv_head = head / (probes_.heads / kv_heads);
    for (int t = 0; t < count; ++t) {
      if (!sees(probe, begin + t)) continue;
      const float* key = keys_.data() + ((begin + t) * kv_heads + kv_head) * dims;
      masses[static_cast<std::size_t>(t)] += std::exp(dot(query.data(), key, dims) - maximum) / sum;
    }
  }

  std::int64_t seeing_probes(Tokens token) const {
    std::int64_t count = 0;
    for (Tokens probe = 0; probe < probes_.tokens; ++probe) count += sees(probe, token) ? 1 : 0;
    return count;
  }

  bool sees(Tokens probe, Tokens token) const {
    const Tokens at = first_ + token;
    const Tokens tile = at / kTileTokens * kTileTokens;
    if ((present_tokens(list_, tile) >> (at - tile) & 1) == 0) return false;
    return probes_.positions.empty() ||
           seen_positions(probes_, probe).contain(list_.positions[static_cast<std::size_t>(at)]);
  }

  const Queries& probes_;
  const PageList& list_;
  std::span<const float> partials_;
  std::span<const float> keys_;  // [tokens, kv_heads, head_dim]
  Tokens first_;                 // of the page, in the list
};

}  // namespace

void add_token_scores(const Queries& probes, const PageList& list, std::span<const float> partials,
                      std::span<float> scratch, std::span<float> scores) {
  for (Tokens first = 0; first < list.tokens; first += list.shape.tokens) {
    decode_page_keys(list, static_cast<std::size_t>(first / list.shape.tokens), scratch);
    const PageScores page(probes, list, partials, scratch, first);
    const Tokens used = std::min(list.shape.tokens, list.tokens - first);
    for (Tokens begin = 0; begin < used; begin += kTileTokens) {
      const auto count = static_cast<int>(std::min<Tokens>(kTileTokens, used - begin));
      page.add_tile(
          begin, count,
          scores.subspan(static_cast<std::size_t>(first + begin), static_cast<std::size_t>(count)));
    }
  }
}

}  // namespace modalkv
