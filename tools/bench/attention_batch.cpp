#include "tools/bench/attention_batch.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "kernels/attention.hpp"
#include "modalkv/error.hpp"
#include "tools/bench/exact_attention.hpp"
#include "tools/bench/huge_buffer.hpp"
#include "tools/bench/random_rows.hpp"
#include "tools/bench/rotation.hpp"

namespace modalkv {
namespace {

// Multiply-adds that the exact attention may take.
constexpr double kExactOperations = 1e9;

// Tokens of each part of one sequence; the last takes what rounding left.
std::vector<Tokens> split_tokens(Tokens tokens, const std::vector<FormatShare>& mix) {
  std::vector<Tokens> parts;
  Tokens left = tokens;
  for (const FormatShare& part : mix) {
    const auto share = static_cast<Tokens>(std::llround(part.share * static_cast<double>(tokens)));
    parts.push_back(&part == &mix.back() ? left : std::min(left, share));
    left -= parts.back();
  }
  if (std::any_of(parts.begin(), parts.end(), [](Tokens part) { return part < 1; }))
    throw Error(
        fmt::format("a sequence of {} tokens leaves a part of the mix without any", tokens));
  return parts;
}

}  // namespace

std::vector<Tokens> batch_lengths(Tokens mean_tokens, int batch) {
  std::vector<Tokens> lengths;
  for (int i = 0; i < batch; ++i) {
    const double place = (i + 0.5) / batch;
    lengths.push_back(
        std::max<Tokens>(1, std::llround(static_cast<double>(mean_tokens) * (0.5 + place))));
  }
  return lengths;
}

PageShape page_shape(const AttentionCase& options, const FormatShare& part) {
  const PageShape shape{options.page_tokens, options.kv_heads, options.head_dim, part.format};
  if (!is_page(shape))
    throw Error(fmt::format(
        "there are no {} pages of {} tokens, {} KV heads and head_dim {}: tokens must be a "
        "multiple of 16 up to 4096, head_dim a multiple of 16 up to {}",
        part.name, shape.tokens, shape.kv_heads, shape.head_dim, kMaxHeadDim));
  return shape;
}

AttentionBatch::AttentionBatch(const AttentionCase& options, Bytes last_level_cache_bytes)
    : options_(options),
      lengths_(batch_lengths(options.tokens, options.batch)),
      lists_(lengths_.size()) {
  std::vector<std::vector<Tokens>> part_lengths(options.mix.size());
  for (const Tokens length : lengths_) {
    const auto split = split_tokens(length, options.mix);
    for (std::size_t p = 0; p < split.size(); ++p) part_lengths[p].push_back(split[p]);
  }
  Bytes one_copy = 0, reference = 0;
  for (std::size_t p = 0; p < part_lengths.size(); ++p) {
    const PageShape shape = page_shape(options, options.mix[p]);
    one_copy += KvCopies::bytes(shape, part_lengths[p], 1);
    reference += KvCopies::reference_bytes(shape, part_lengths[p]);
  }
  copies_ = rotation_copies(one_copy, last_level_cache_bytes);
  require_memory(one_copy * copies_ + ceiling_pass_bytes(one_copy) + reference,
                 fmt::format("KV of {} tokens in {} copies", total_tokens(), copies_));
  for (std::size_t p = 0; p < part_lengths.size(); ++p)
    parts_.emplace_back(page_shape(options, options.mix[p]), options.input, part_lengths[p],
                        copies_, options.seed + p);
  std::mt19937_64 random(options.seed + parts_.size());
  query_elements_ = random_elements(
      lengths_.size() * static_cast<std::size_t>(options.q_heads * options.head_dim), options.input,
      static_cast<float>(options.query_scale), random);
  partials_.resize(lengths_.size() * partial_floats());
}

std::span<const SequenceAttention> AttentionBatch::sequences(int copy, int part) {
  sequences_.clear();
  for (std::size_t s = 0; s < lengths_.size(); ++s) {
    lists_[s].clear();
    for (std::size_t p = 0; p < parts_.size(); ++p)
      if (part < 0 || p == static_cast<std::size_t>(part))
        lists_[s].push_back(parts_[p].list(copy, s));
    sequences_.push_back({queries(s), lists_[s],
                          std::span(partials_).subspan(s * partial_floats(), partial_floats())});
  }
  return sequences_;
}

int AttentionBatch::heads_to_check() const {
  const double one = 2.0 * static_cast<double>(lengths_.front()) * options_.head_dim;
  return std::clamp(static_cast<int>(kExactOperations / one), 1, options_.q_heads);
}

double AttentionBatch::error_of_first_sequence(int heads) const {
  const auto dim = static_cast<std::size_t>(options_.head_dim);
  std::vector<float> outputs(static_cast<std::size_t>(options_.q_heads) * dim), found;
  finish_partials(std::span(partials_).first(partial_floats()), options_.q_heads, options_.head_dim,
                  outputs, {});
  std::vector<double> expected;
  for (int i = 0; i < heads; ++i) {
    const int head = i * options_.q_heads / heads;
    const auto exact = exact_output(head);
    expected.insert(expected.end(), exact.begin(), exact.end());
    const auto row = std::span(outputs).subspan(static_cast<std::size_t>(head) * dim, dim);
    found.insert(found.end(), row.begin(), row.end());
  }
  return relative_l2_error(found, expected);
}

Tokens AttentionBatch::total_tokens() const {
  Tokens total = 0;
  for (const Tokens length : lengths_) total += length;
  return total;
}

Tokens AttentionBatch::part_tokens(std::size_t part) const {
  Tokens total = 0;
  for (std::size_t s = 0; s < lengths_.size(); ++s) total += parts_[part].list(0, s).tokens;
  return total;
}

Bytes AttentionBatch::bytes_read() const {
  Bytes total = 0;
  for (const KvCopies& part : parts_) total += part.bytes_read();
  return total;
}

std::size_t AttentionBatch::distinct_pages() const {
  std::size_t total = 0;
  for (const KvCopies& part : parts_) total += part.distinct_pages();
  return total;
}

std::span<const std::byte> AttentionBatch::memory() const {
  const auto smaller = [](const KvCopies& a, const KvCopies& b) {
    return a.memory().size() < b.memory().size();
  };
  return std::max_element(parts_.begin(), parts_.end(), smaller)->memory();
}

std::size_t AttentionBatch::partial_floats() const {
  return static_cast<std::size_t>(options_.q_heads) *
         static_cast<std::size_t>(options_.head_dim + 2);
}

Queries AttentionBatch::queries(std::size_t sequence) const {
  const std::int64_t row = std::int64_t{options_.q_heads} * options_.head_dim;
  Queries queries;
  queries.elements = query_elements_.data() + static_cast<std::int64_t>(sequence) * row;
  queries.number = options_.input;
  queries.heads = options_.q_heads;
  queries.token_stride = row;
  queries.head_stride = options_.head_dim;
  queries.scale = 1 / std::sqrt(static_cast<float>(options_.head_dim));
  return queries;
}

std::vector<double> AttentionBatch::exact_output(int head) const {
  const Queries all = queries(0);
  std::vector<double> query;
  for (int d = 0; d < options_.head_dim; ++d)
    query.push_back(
        static_cast<double>(from_16bit(all.elements[head * all.head_stride + d], options_.input)));
  ExactAttention exact(std::move(query), static_cast<double>(all.scale));
  const int kv_head = head / (options_.q_heads / options_.kv_heads);
  for (const KvCopies& part : parts_) {
    const Tokens tokens = part.list(0, 0).tokens;
    for (Tokens token = 0; token < tokens; ++token)
      exact.add(part.key(0, token, kv_head), part.value(0, token, kv_head));
  }
  return exact.output();
}

}  // namespace modalkv
