#include "tests/gpu/kernel_cases.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

#include "kernels/checksum.hpp"
#include "kernels/effects.hpp"
#include "kernels/number.hpp"
#include "modalkv/format.hpp"

namespace modalkv {
namespace {

constexpr Bytes kRedZoneBytes = 64;

// Lays out what operations read and write, with bytes between that nobody may touch.
class Layout {
 public:
  explicit Layout(std::string name, std::uint64_t seed) : random_(seed) {
    made_.name = std::move(name);
  }

  Address room(Bytes bytes, Bytes shift = 0) {
    const Bytes offset = round_up(size() + kRedZoneBytes, kPageAlignmentBytes) + shift;
    made_.memory.resize(static_cast<std::size_t>(offset + bytes + kRedZoneBytes), std::byte{0xa5});
    return {{0}, offset, bytes};
  }
  template <typename T>
  Address put(const std::vector<T>& values) {
    const Address at = room(static_cast<Bytes>(values.size() * sizeof(T)));
    std::memcpy(made_.memory.data() + at.offset, values.data(), values.size() * sizeof(T));
    return at;
  }
  Address random_bytes(Bytes bytes, Bytes shift = 0) {
    const Address at = room(bytes, shift);
    for (Bytes i = 0; i < bytes; ++i)
      made_.memory[static_cast<std::size_t>(at.offset + i)] = static_cast<std::byte>(random_());
    return at;
  }
  /// 16-bit numbers of a normal distribution.
  Address rows(std::int64_t elements, NumberFormat number, float scale = 1) {
    std::normal_distribution<float> normal(0, scale);
    std::vector<std::uint16_t> values(static_cast<std::size_t>(elements));
    for (std::uint16_t& value : values)
      value = number == NumberFormat::bf16 ? to_bf16(normal(random_)) : to_fp16(normal(random_));
    return put(values);
  }
  /// What an operation writes, before the case begins.
  void perform_now(const Op& op) {
    std::byte* space = made_.memory.data();
    if (perform(op, {&space, 1}) != Status::ok) throw std::runtime_error(made_.name);
  }
  KernelCase& made() { return made_; }
  std::uint64_t random() { return random_(); }

 private:
  Bytes size() const { return static_cast<Bytes>(made_.memory.size()); }

  KernelCase made_;
  std::mt19937_64 random_;
};

struct Format {
  const char* name;
  KvFormat format;
};

std::vector<Format> formats(bool small) {
  std::vector<Format> all = {
      {"fp16", both(fp16())}, {"int4", both(int4_token_head())}, {"int8", both(int8_token_head())}};
  if (small) return all;
  all.insert(all.end(), {{"bf16", both(bf16())},
                         {"fp8", both(fp8_e4m3())},
                         {"int4-g64", both(int4_grouped(64))},
                         {"int2-g64", both(int2_grouped(64))},
                         {"int2-g32", both(int2_grouped(32))},
                         {"nvfp4", both(nvfp4())},
                         {"mxfp4", both(mxfp4())},
                         {"int8-int4", {int8_token_head(), int4_token_head()}},
                         {"fp16-int4", {fp16(), int4_token_head()}}});
  return all;
}

NumberFormat rows_of(const KvFormat& format) {
  return format == both(bf16()) ? NumberFormat::bf16 : NumberFormat::fp16;
}

Encode encode_of(Layout& layout, const PageShape& shape, Tokens tokens) {
  const std::int64_t elements = tokens * shape.kv_heads * shape.head_dim;
  const NumberFormat input = rows_of(shape.format);
  const Address keys = layout.rows(elements, input), values = layout.rows(elements, input);
  Encode encode{.keys = keys, .values = values, .page = layout.room(page_bytes(shape))};
  encode.shape = shape;
  encode.tokens = tokens;
  encode.input = input;
  encode.generation = 7;
  return encode;
}

void add_bytes(std::vector<KernelCase>& cases, bool small) {
  for (const Bytes bytes : {Bytes{1}, Bytes{63}, Bytes{4096}, small ? Bytes{70'001} : 5 * kMiB + 3})
    for (const Bytes shift : {0, 1, 8}) {
      Layout layout("bytes-" + std::to_string(bytes) + "-" + std::to_string(shift),
                    static_cast<std::uint64_t>(bytes + shift));
      const Address from = layout.random_bytes(bytes, shift), to = layout.room(bytes, 3 * shift);
      const Address filled = layout.room(bytes, shift), sum = layout.room(kChecksumBytes);
      layout.made().ops = {Copy{from, to}, Fill{filled, 0x5e}, Checksum{to, sum},
                           Verify{from, sum}};
      cases.push_back(layout.made());
    }
  Layout bad("verify-fails", 5);
  const Address of = bad.random_bytes(1000), expected = bad.random_bytes(8), after = bad.room(64);
  bad.made().ops = {Verify{of, expected}, Fill{after, 1}};
  cases.push_back(bad.made());
}

void add_pages(std::vector<KernelCase>& cases, bool small) {
  for (const Format& format : formats(small))
    for (const int head_dim : small ? std::vector{128} : std::vector{64, 128, 256})
      for (const Tokens tokens : {64, 37}) {
        Layout layout("page-" + std::string(format.name) + "-" + std::to_string(head_dim) + "-" +
                          std::to_string(tokens),
                      static_cast<std::uint64_t>(head_dim + tokens));
        const PageShape shape{
            .tokens = 64, .kv_heads = 4, .head_dim = head_dim, .format = format.format};
        const Encode encode = encode_of(layout, shape, tokens);
        const Address keys = layout.room(encode.keys.bytes), values = layout.room(keys.bytes);
        Decode decode{.page = encode.page, .keys = keys, .values = values, .shape = shape};
        decode.tokens = tokens;
        decode.output = encode.input;
        VerifyPage verify{.page = encode.page};
        verify.generation = encode.generation;
        VerifyPage other = verify;
        other.generation = 8;
        layout.made().ops = {encode, verify, decode};
        cases.push_back(layout.made());
        layout.made().name += "-other";
        layout.made().ops = {encode, other, decode};
        cases.push_back(layout.made());
      }
  for (const KvFormat& format : {both(fp16()), both(bf16())}) {
    Layout layout(format == both(fp16()) ? "open-fp16" : "open-bf16", 11);
    const PageShape shape{.tokens = 32, .kv_heads = 2, .head_dim = 64, .format = format};
    const Address page = layout.room(page_bytes(shape));
    Tokens first = 0;
    for (const Tokens tokens : {5, 1, 1, 20}) {
      const Encode rows = encode_of(layout, shape, tokens);
      Append append{.keys = rows.keys, .values = rows.values, .page = page, .shape = shape};
      append.first = first;
      append.tokens = tokens;
      append.input = rows.input;
      layout.made().ops.push_back(append);
      first += tokens;
    }
    Close close{.page = page, .shape = shape, .tokens = first - 2};
    close.generation = 3;
    VerifyPage verify{.page = page};
    verify.generation = 3;
    layout.made().ops.insert(layout.made().ops.end(), {close, verify});
    cases.push_back(layout.made());
  }
}

struct AttendShape {
  int query_heads, kv_heads, head_dim, query_tokens;
  Tokens tokens;
};

// Pages in an order that is not theirs; two lists, merged and finished, and scored.
void add_attention(std::vector<KernelCase>& cases, bool small) {
  std::vector<AttendShape> shapes = {{4, 4, 128, 1, 200}, {8, 2, 64, 3, 130}};
  if (!small)
    shapes.insert(shapes.end(), {{32, 32, 128, 1, 1000},
                                 {28, 4, 128, 1, 3000},
                                 {28, 4, 128, 128, 700},
                                 {16, 2, 256, 1, 333},
                                 {12, 12, 80, 2, 100}});
  for (const Format& format : formats(small))
    for (const AttendShape& at : shapes) {
      if (at.head_dim == 80 && format.format.key.group > 16) continue;
      const PageShape shape{
          .tokens = 64, .kv_heads = at.kv_heads, .head_dim = at.head_dim, .format = format.format};
      if (!is_page(shape)) continue;
      Layout layout("attend-" + std::string(format.name) + "-" + std::to_string(at.query_heads) +
                        "/" + std::to_string(at.kv_heads) + "-" + std::to_string(at.head_dim) +
                        "-" + std::to_string(at.query_tokens) + "x" + std::to_string(at.tokens),
                    static_cast<std::uint64_t>(at.tokens * at.head_dim));
      const auto pages = divide_up(at.tokens, shape.tokens);
      const Bytes bytes = page_bytes(shape);
      const Address area = layout.room(pages * bytes);
      std::vector<std::int64_t> table(static_cast<std::size_t>(pages));
      std::iota(table.begin(), table.end(), std::int64_t{0});
      std::shuffle(table.begin(), table.end(), std::mt19937_64(layout.random()));
      for (std::int64_t p = 0; p < pages; ++p) {
        const Tokens held = std::min(shape.tokens, at.tokens - p * shape.tokens);
        Encode encode = encode_of(layout, shape, held);
        table[static_cast<std::size_t>(p)] *= bytes;
        encode.page = {{0}, area.offset + table[static_cast<std::size_t>(p)], bytes};
        layout.perform_now(encode);
      }
      const std::int64_t rows = std::int64_t{at.query_tokens} * at.query_heads;
      const NumberFormat number = rows_of(format.format);
      const Address part_table = layout.put(table);
      Attend attend{.queries = layout.rows(rows * at.head_dim, number),
                    .pages = area,
                    .page_table = part_table,
                    .partials = {}};
      attend.shape = shape;
      attend.query_heads = at.query_heads;
      attend.query_tokens = at.query_tokens;
      attend.input = number;
      attend.logit_scale = 1 / std::sqrt(static_cast<float>(at.head_dim));
      const Bytes part = partial_bytes(rows, at.head_dim);
      const Address partials = layout.room(2 * part), merged = layout.room(part);
      const Address outputs = layout.room(rows * at.head_dim * 2);
      const Address log_sum_exp = layout.room(rows * 4);
      std::vector<Op>& ops = layout.made().ops;
      const Tokens first = divide_up(pages, 2) * shape.tokens;
      for (const int list : {0, 1}) {
        const Tokens begin = list == 0 ? 0 : first, end = list == 0 ? first : at.tokens;
        const std::int64_t begin_page = begin / shape.tokens;
        attend.tokens = std::min(end, at.tokens) - begin;
        attend.page_table = {
            {0}, part_table.offset + begin_page * 8, divide_up(attend.tokens, shape.tokens) * 8};
        attend.partials = {{0}, partials.offset + list * part, part};
        ops.push_back(attend);
      }
      ops.push_back(Merge{partials, merged, 2, static_cast<std::int32_t>(rows), at.head_dim});
      ops.push_back(Finish{.partials = merged,
                           .outputs = outputs,
                           .log_sum_exp = log_sum_exp,
                           .rows = static_cast<std::int32_t>(rows),
                           .head_dim = at.head_dim});
      layout.made().ignored = {partials, merged};
      layout.made().loose_fp16 = {outputs};
      layout.made().loose_f32 = {log_sum_exp};
      if (at.query_tokens <= 16) {
        const Address scores = layout.room(at.tokens * 4);
        const Address scratch = layout.room(score_scratch_bytes(shape));
        Score score{.queries = attend.queries,
                    .pages = area,
                    .page_table = part_table,
                    .partials = merged,
                    .scores = scores,
                    .scratch = scratch};
        score.shape = shape;
        score.tokens = at.tokens;
        score.query_heads = at.query_heads;
        score.query_tokens = at.query_tokens;
        score.input = number;
        score.logit_scale = attend.logit_scale;
        ops.push_back(score);
        layout.made().ignored.push_back(scratch);
        layout.made().loose_f32.push_back(scores);
      }
      cases.push_back(layout.made());
    }
}

}  // namespace

std::vector<KernelCase> kernel_cases(bool small) {
  std::vector<KernelCase> cases;
  add_bytes(cases, small);
  add_pages(cases, small);
  add_attention(cases, small);
  return cases;
}

}  // namespace modalkv
