#include "kernels/effects.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

#include "kernels/attention.hpp"
#include "kernels/checksum.hpp"
#include "kernels/open_page.hpp"
#include "kernels/page_codec.hpp"
#include "kernels/token_scores.hpp"

namespace modalkv {
namespace {

class Effects {
 public:
  explicit Effects(SpaceMemory memory) : memory_(memory) {}

  Status operator()(const Copy& copy) const {
    std::memcpy(at(copy.to), at(copy.from), size(copy.to));
    return Status::ok;
  }
  Status operator()(const Fill& fill) const {
    std::memset(at(fill.to), fill.value, size(fill.to));
    return Status::ok;
  }
  Status operator()(const Checksum& sum) const {
    const std::uint64_t value = checksum({at(sum.of), size(sum.of)});
    std::memcpy(at(sum.to), &value, sizeof(value));
    return Status::ok;
  }
  Status operator()(const Verify& verify) const {
    std::uint64_t expected = 0;
    std::memcpy(&expected, at(verify.expected), sizeof(expected));
    return checksum({at(verify.of), size(verify.of)}) == expected ? Status::ok : Status::checksum;
  }
  Status operator()(const VerifyPage& verify) const {
    const std::span page = as<const std::byte>(verify.page);
    if (verify_page(page) != Status::ok) return Status::checksum;
    const PageTrailer trailer = read_trailer(page);
    return trailer.content == verify.content && trailer.generation == verify.generation
               ? Status::ok
               : Status::checksum;
  }
  Status operator()(const Encode& encode) const {
    const PageShape& shape = encode.shape;
    const PageTrailer trailer{encode.content, encode.generation,
                              static_cast<std::uint32_t>(encode.tokens)};
    const KeyBias bias = key_bias(encode.key_bias, shape);
    return encode_page(shape, rows(encode.keys, shape, encode.input),
                       rows(encode.values, shape, encode.input), trailer,
                       {encode.key_scale, encode.value_scale}, as<std::byte>(encode.page),
                       known(bias, as<std::int32_t>(encode.key_bias.positions)))
        .status;
  }
  Status operator()(const Append& append) const {
    return append_rows(append.shape, rows(append.keys, append.shape, append.input),
                       rows(append.values, append.shape, append.input), append.first, append.tokens,
                       as<std::byte>(append.page))
        .status;
  }
  Status operator()(const Close& close) const {
    close_page(close.shape,
               {close.content, close.generation, static_cast<std::uint32_t>(close.tokens)},
               as<std::byte>(close.page));
    return Status::ok;
  }
  Status operator()(const Decode& decode) const {
    const PageShape& shape = decode.shape;
    const std::span page = as<std::byte>(decode.page);
    if (verify_page(page) != Status::ok || read_trailer(page).tokens != decode.tokens)
      return Status::checksum;
    const TensorScales scales{decode.key_scale, decode.value_scale};
    const KeyBias bias = key_bias(decode.key_bias, shape);
    decode_keys(shape, page, scales, mutable_rows(decode.keys, shape, decode.output),
                known(bias, as<std::int32_t>(decode.key_bias.positions)));
    decode_values(shape, page, scales, mutable_rows(decode.values, shape, decode.output));
    return Status::ok;
  }
  Status operator()(const Attend& op) const {
    const std::span partials = as<float>(op.partials);
    clear_partials(partials, std::int64_t{op.query_tokens} * op.query_heads, op.shape.head_dim);
    return for_each_list(op, {op.key_scale, op.value_scale}, [&](const PageList& list, Tokens) {
      attend(queries(op), list, 0, op.shape.kv_heads, partials);
    });
  }
  Status operator()(const Merge& merge) const {
    merge_partials(as<float>(merge.partials), merge.parts, merge.rows, merge.head_dim,
                   as<float>(merge.to));
    return Status::ok;
  }
  Status operator()(const Finish& finish) const {
    finish_partials(as<float>(finish.partials), finish.rows, finish.head_dim, finish.output,
                    as<std::uint16_t>(finish.outputs), as<float>(finish.log_sum_exp));
    return Status::ok;
  }
  Status operator()(const Score& op) const {
    const std::span scores = as<float>(op.scores);
    std::fill(scores.begin(), scores.end(), 0.0f);
    return for_each_list(op, {.key = op.key_scale}, [&](const PageList& list, Tokens first) {
      add_token_scores(queries(op), list, as<float>(op.partials), as<float>(op.scratch),
                       part(scores, first, list.tokens));
    });
  }
  Status operator()(const EngineWork&) const { return Status::unsupported; }

  Status find(const Attend& op, std::span<const std::byte*> pages, AttendOperands& operands) const {
    operands.queries = queries(op);
    operands.bias = key_bias(op.key_bias, op.shape);
    operands.partials = as<float>(op.partials);
    return find_list(op, {op.key_scale, op.value_scale}, operands.bias, 0, op.tokens, pages,
                     operands.list);
  }

 private:
  std::byte* at(const Address& address) const {
    return memory_[address.space.index] + address.offset;
  }
  template <typename T>
  std::span<T> as(const Address& address) const {
    if (address.bytes == 0) return {};
    return {reinterpret_cast<T*>(at(address)), size(address) / sizeof(T)};
  }
  // What may be missing (empty) stays so.
  template <typename T>
  static std::span<T> part(std::span<T> whole, std::int64_t begin, std::int64_t count) {
    return whole.empty()
               ? whole
               : whole.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(count));
  }

  Rows rows(const Address& address, const PageShape& shape, NumberFormat number) const {
    return {as<std::uint16_t>(address).data(), std::int64_t{shape.kv_heads} * shape.head_dim,
            shape.head_dim, number};
  }
  MutableRows mutable_rows(const Address& address, const PageShape& shape,
                           NumberFormat number) const {
    return {as<std::uint16_t>(address).data(), std::int64_t{shape.kv_heads} * shape.head_dim,
            shape.head_dim, number};
  }
  KeyBias key_bias(const KeyBiasAddress& address, const PageShape& shape) const {
    return {.elements = as<float>(address.elements).data(),
            .frequencies = as<float>(address.frequencies).data(),
            .sections = address.sections,
            .head_dim = shape.head_dim};
  }
  static KnownBias known(const KeyBias& bias, std::span<const std::int32_t> positions) {
    return bias.elements == nullptr ? KnownBias{} : KnownBias{&bias, positions};
  }

  // Attend and Score: their queries, and their pages as lists.
  template <typename OverPages>
  Queries queries(const OverPages& op) const {
    return {.elements = as<std::uint16_t>(op.queries).data(),
            .number = op.input,
            .tokens = op.query_tokens,
            .heads = op.query_heads,
            .token_stride = std::int64_t{op.query_heads} * op.shape.head_dim,
            .head_stride = op.shape.head_dim,
            .scale = op.logit_scale,
            .positions = as<std::int32_t>(op.query_positions),
            .window = op.window};
  }
  // Pages in handfuls, whose tokens fill whole words of `hidden`; `use` gets each as a list, and
  // its first token. Ends where the table points out of the pages.
  template <typename OverPages, typename Use>
  Status for_each_list(const OverPages& op, const TensorScales& scales, Use use) const {
    constexpr std::int64_t kHandful = 64;
    std::array<const std::byte*, kHandful> pages;
    const Tokens step = kHandful * op.shape.tokens;
    const KeyBias bias = key_bias(op.key_bias, op.shape);
    for (Tokens begin = 0; begin < op.tokens; begin += step) {
      PageList list;
      const Status status =
          find_list(op, scales, bias, begin, std::min(step, op.tokens - begin), pages, list);
      if (status != Status::ok) return status;
      use(list, begin);
    }
    return Status::ok;
  }
  // Tokens [begin, begin + tokens) as a list, which refers to `pages` and `bias`.
  template <typename OverPages>
  Status find_list(const OverPages& op, const TensorScales& scales, const KeyBias& bias,
                   Tokens begin, Tokens tokens, std::span<const std::byte*> pages,
                   PageList& list) const {
    pages = pages.first(static_cast<std::size_t>(divide_up(tokens, op.shape.tokens)));
    for (std::size_t i = 0; i < pages.size(); ++i) {
      pages[i] = listed_page(op, begin / op.shape.tokens + static_cast<std::int64_t>(i));
      if (pages[i] == nullptr) return Status::rejected;
    }
    const int axes = bias.sections.axes();
    list = {.shape = op.shape,
            .scales = scales,
            .pages = pages,
            .tokens = tokens,
            .positions = part(as<std::int32_t>(op.token_positions), begin, tokens),
            .hidden = part(as<std::uint64_t>(op.hidden), begin / 64, divide_up(tokens, 64)),
            .known_bias = known(
                bias, part(as<std::int32_t>(op.key_bias.positions), begin * axes, tokens * axes))};
    return Status::ok;
  }
  // nullptr where the table points out of the pages.
  template <typename OverPages>
  const std::byte* listed_page(const OverPages& op, std::int64_t index) const {
    Bytes offset = 0;
    std::memcpy(&offset, at(op.page_table) + index * kPageTableEntryBytes, sizeof(offset));
    if (offset < 0 || offset > op.pages.bytes - page_bytes(op.shape)) return nullptr;
    return at(op.pages) + offset;
  }
  static std::size_t size(const Address& address) {
    return static_cast<std::size_t>(address.bytes);
  }

  SpaceMemory memory_;
};

}  // namespace

Status perform(const Op& op, SpaceMemory memory) {
  return std::visit(Effects(memory), op);
}

Status find_operands(const Attend& op, SpaceMemory memory, std::span<const std::byte*> pages,
                     AttendOperands& operands) {
  return Effects(memory).find(op, pages, operands);
}

}  // namespace modalkv
