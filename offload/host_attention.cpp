#include "offload/host_attention.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>
#include <vector>

#include "offload/node_arena.hpp"

namespace modalkv {
namespace {

constexpr Tokens kHiddenWordTokens = 64;
constexpr Tokens kLeastTokens = 256;  // of a piece: fewer are not worth merging
constexpr int kPiecesPerThread = 3;   // so that a late thread does not keep the others waiting

// Lists are cut where a page and a word of hidden bits begin.
Tokens cut_step(const PageList& list) {
  return std::lcm(list.shape.tokens, kHiddenWordTokens);
}

PageList cut(const PageList& list, Tokens begin, Tokens end) {
  const auto part = [](auto span, std::int64_t from, std::int64_t to) {
    return span.empty()
               ? span
               : span.subspan(static_cast<std::size_t>(from), static_cast<std::size_t>(to - from));
  };
  PageList piece = list;
  piece.tokens = end - begin;
  piece.pages = part(list.pages, begin / list.shape.tokens, divide_up(end, list.shape.tokens));
  piece.positions = part(list.positions, begin, end);
  piece.hidden = part(list.hidden, begin / kHiddenWordTokens, divide_up(end, kHiddenWordTokens));
  if (const KeyBias* bias = list.known_bias.bias) {
    const int axes = bias->sections.axes();
    piece.known_bias.positions = part(list.known_bias.positions, begin * axes, end * axes);
  }
  return piece;
}

// What attending takes, in bytes that could be read meanwhile.
double token_cost(const SequenceAttention& sequence, const PageList& list) {
  constexpr double elements_per_byte = 4;  // multiplied, of all query rows
  const double rows = static_cast<double>(sequence.queries.tokens) * sequence.queries.heads;
  return static_cast<double>(list.shape.kv_heads *
                             token_head_bytes(list.shape.format, list.shape.head_dim)) +
         rows * list.shape.head_dim / elements_per_byte;
}

}  // namespace

class HostAttention::Impl {
 public:
  explicit Impl(int threads) : arena_(threads) {}
  explicit Impl(std::span<const int> cpus) : arena_(cpus) {}

  int threads() const { return arena_.threads(); }
  std::int64_t unbound() const { return arena_.unbound(); }

  void attend(std::span<const SequenceAttention> batch) {
    divide(batch);
    next_piece_.store(0, std::memory_order_relaxed);
    const auto work = [&] {
      for (;;) {
        const std::size_t i = next_piece_.fetch_add(1, std::memory_order_relaxed);
        if (i >= pieces_.size()) return;
        run(batch, pieces_[i]);
      }
    };
    arena_.run(static_cast<int>(std::min(pieces_.size(), static_cast<std::size_t>(threads()))),
               work);
  }

 private:
  // A range of tokens, counted through all lists, and of KV heads of a sequence.
  struct Piece {
    std::size_t sequence;
    Tokens begin, end;
    int first_kv_head, end_kv_head;
    std::size_t partials;  // in scratch_, where the sequence is cut
  };
  struct Parts {
    std::size_t partials;  // those of all token ranges, one after another
    std::int64_t count;    // token ranges
    std::atomic<int> pieces_left;
  };

  void divide(std::span<const SequenceAttention> batch) {
    pieces_.clear();
    if (parts_.size() < batch.size()) parts_ = std::vector<Parts>(batch.size());
    double cost = 0;
    for (const SequenceAttention& sequence : batch) cost += sequence_cost(sequence);
    const double piece_cost = cost / (threads() == 1 ? 1 : threads() * kPiecesPerThread);
    std::size_t scratch = 0;
    for (std::size_t s = 0; s < batch.size(); ++s) {
      Tokens tokens = 0;
      for (const PageList& list : batch[s].lists) tokens += list.tokens;
      const int kv_heads = batch[s].lists.empty() ? 1 : batch[s].lists.front().shape.kv_heads;
      const auto wanted =
          threads() == 1
              ? 1
              : std::max<std::int64_t>(1, std::llround(sequence_cost(batch[s]) / piece_cost));
      const std::int64_t ranges = std::clamp<std::int64_t>(tokens / kLeastTokens, 1, wanted);
      const auto head_groups =
          static_cast<int>(std::clamp<std::int64_t>(divide_up(wanted, ranges), 1, kv_heads));
      parts_[s].partials = scratch;
      parts_[s].count = ranges;
      parts_[s].pieces_left.store(static_cast<int>(ranges) * head_groups,
                                  std::memory_order_relaxed);
      for (std::int64_t r = 0; r < ranges; ++r) {
        for (int g = 0; g < head_groups; ++g)
          pieces_.push_back({s, tokens * r / ranges, tokens * (r + 1) / ranges,
                             kv_heads * g / head_groups, kv_heads * (g + 1) / head_groups,
                             scratch});
        if (ranges > 1) scratch += batch[s].partials.size();
      }
    }
    if (scratch_.size() < scratch) scratch_.resize(scratch);
  }

  static double sequence_cost(const SequenceAttention& sequence) {
    double cost = 0;
    for (const PageList& list : sequence.lists)
      cost += static_cast<double>(list.tokens) * token_cost(sequence, list);
    return cost;
  }

  void run(std::span<const SequenceAttention> batch, const Piece& piece) {
    const SequenceAttention& sequence = batch[piece.sequence];
    Parts& parts = parts_[piece.sequence];
    const std::span all = sequence.partials;
    const std::span own =
        parts.count == 1 ? all : std::span(scratch_).subspan(piece.partials, all.size());
    attend_piece(sequence, piece, own);
    // Who ends a sequence's last piece has seen what all the others wrote.
    if (parts.pieces_left.fetch_sub(1, std::memory_order_acq_rel) != 1 || parts.count == 1) return;
    const std::int64_t rows = sequence.queries.tokens * sequence.queries.heads;
    merge_partials(std::span(scratch_).subspan(parts.partials), parts.count, rows,
                   static_cast<int>(static_cast<std::int64_t>(all.size()) / rows) - 2, all);
  }

  static void attend_piece(const SequenceAttention& sequence, const Piece& piece,
                           std::span<float> partials) {
    const Queries& queries = sequence.queries;
    const std::int64_t rows = queries.tokens * queries.heads;
    const auto row_floats = static_cast<std::int64_t>(partials.size()) / rows;
    const int kv_heads = sequence.lists.empty() ? 1 : sequence.lists.front().shape.kv_heads;
    const int group = queries.heads / kv_heads;
    for (Tokens token = 0; token < queries.tokens; ++token) {
      const std::int64_t first = token * queries.heads + piece.first_kv_head * group;
      clear_partials(partials.subspan(static_cast<std::size_t>(first * row_floats)),
                     (piece.end_kv_head - piece.first_kv_head) * group,
                     static_cast<int>(row_floats) - 2);
    }
    Tokens before = 0;  // tokens of the lists before
    for (const PageList& list : sequence.lists) {
      const Tokens step = cut_step(list);
      const auto cut_at = [&](Tokens token) {
        const Tokens in_list = std::clamp<Tokens>(token - before, 0, list.tokens);
        return in_list == list.tokens ? in_list : in_list / step * step;
      };
      const Tokens begin = cut_at(piece.begin), end = cut_at(piece.end);
      before += list.tokens;
      if (begin < end)
        modalkv::attend(queries, cut(list, begin, end), piece.first_kv_head, piece.end_kv_head,
                        partials);
    }
  }

  NodeArena arena_;
  std::vector<Piece> pieces_;
  std::vector<Parts> parts_;
  std::vector<float> scratch_;
  std::atomic<std::size_t> next_piece_ = 0;
};

HostAttention::HostAttention(int threads) : impl_(std::make_unique<Impl>(threads)) {}
HostAttention::HostAttention(std::span<const int> cpus) : impl_(std::make_unique<Impl>(cpus)) {}
HostAttention::~HostAttention() = default;

void HostAttention::attend(std::span<const SequenceAttention> batch) {
  impl_->attend(batch);
}

int HostAttention::threads() const {
  return impl_->threads();
}

std::int64_t HostAttention::unbound() const {
  return impl_->unbound();
}

}  // namespace modalkv
