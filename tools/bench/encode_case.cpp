#include "tools/bench/encode_case.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <vector>

#include "kernels/page_codec.hpp"
#include "modalkv/error.hpp"
#include "tools/bench/exact_attention.hpp"
#include "tools/bench/huge_buffer.hpp"
#include "tools/bench/random_rows.hpp"
#include "tools/bench/rotation.hpp"

namespace modalkv {
namespace {

// Of input: what a prefill of a few hundred tokens leaves for a layer, and long enough to time.
constexpr Bytes kRunBytes = 4 * kMiB;
// Of input that is drawn at random; the rest repeats it.
constexpr std::size_t kDistinctElements = std::size_t{1} << 20;

PageShape page_shape(const EncodeCase& options) {
  const PageShape shape{options.page_tokens, options.kv_heads, options.head_dim,
                        options.format.format};
  if (!is_page(shape))
    throw Error(fmt::format(
        "there are no {} pages of {} tokens, {} KV heads and head_dim {}: tokens must be a "
        "multiple of 16 up to 4096, head_dim a multiple of 16 up to {}",
        options.format.name, shape.tokens, shape.kv_heads, shape.head_dim, kMaxHeadDim));
  return shape;
}

// Tokens of K and of V, page after page, and room for their pages; `copies` times.
class EncodeBatch {
 public:
  EncodeBatch(const EncodeCase& options, Bytes last_level_cache_bytes)
      : shape_(page_shape(options)),
        input_(options.input),
        pages_(round_up(divide_up(kRunBytes, input_page_bytes()), options.threads)),
        copies_(rotation_copies(pages_ * input_page_bytes(), last_level_cache_bytes)),
        elements_(checked(copies_ * pages_ * (input_page_bytes() + page_bytes(shape_)),
                          copies_ * pages_ * input_page_bytes())),
        output_(copies_ * pages_ * page_bytes(shape_)) {
    std::mt19937_64 random(options.seed);
    const auto distinct = random_elements(kDistinctElements, options.input, 1, random);
    const std::size_t block = distinct.size() * sizeof(std::uint16_t);
    for (std::size_t at = 0; at < elements_.bytes().size(); at += block)
      std::memcpy(elements_.bytes().data() + at, distinct.data(),
                  std::min(block, elements_.bytes().size() - at));
  }

  /// Page `page` of a copy; false where it was refused.
  bool encode(std::int64_t copy, std::int64_t page) {
    const Rows keys = rows(copy, page, 0), values = rows(copy, page, 1);
    const PageTrailer trailer{{{1, 2, 3, static_cast<std::uint64_t>(page)}},
                              0,
                              static_cast<std::uint32_t>(shape_.tokens)};
    return encode_page(shape_, keys, values, trailer, TensorScales{}, page_at(copy, page)).status ==
           Status::ok;
  }

  bool verified(std::int64_t copy, std::int64_t page) {
    return verify_page(page_at(copy, page)) == Status::ok;
  }

  /// Of the decoded page against its input: what the format loses.
  double rounding_error(bool in_values) {
    const Rows from = rows(0, 0, in_values ? 1 : 0);
    std::vector<float> decoded(
        static_cast<std::size_t>(shape_.tokens * shape_.kv_heads * shape_.head_dim));
    if (in_values)
      decode_values(shape_, page_at(0, 0), TensorScales{}, decoded);
    else
      decode_keys(shape_, page_at(0, 0), TensorScales{}, decoded);
    std::vector<double> expected;
    for (std::size_t i = 0; i < decoded.size(); ++i)
      expected.push_back(static_cast<double>(from_16bit(from.elements[i], input_)));
    return relative_l2_error(decoded, expected);
  }

  std::int64_t pages() const { return pages_; }
  std::int64_t copies() const { return copies_; }
  Bytes input_bytes() const { return pages_ * input_page_bytes(); }
  Bytes output_bytes() const { return pages_ * page_bytes(shape_); }
  std::span<const std::byte> input_memory() const { return elements_.bytes(); }

 private:
  static Bytes checked(Bytes all, Bytes elements) {
    require_memory(all + kMostPassBytes, "K and V in rotated copies");
    return elements;
  }
  std::int64_t side_elements() const { return shape_.tokens * shape_.kv_heads * shape_.head_dim; }
  Bytes input_page_bytes() const { return 2 * side_elements() * Bytes{sizeof(std::uint16_t)}; }
  Rows rows(std::int64_t copy, std::int64_t page, int side) const {
    const auto* all = reinterpret_cast<const std::uint16_t*>(elements_.bytes().data());
    return {all + ((copy * pages_ + page) * 2 + side) * side_elements(),
            std::int64_t{shape_.kv_heads} * shape_.head_dim, shape_.head_dim, input_};
  }
  std::span<std::byte> page_at(std::int64_t copy, std::int64_t page) {
    const auto bytes = static_cast<std::size_t>(page_bytes(shape_));
    return output_.bytes().subspan(static_cast<std::size_t>(copy * pages_ + page) * bytes, bytes);
  }

  PageShape shape_;
  NumberFormat input_;
  std::int64_t pages_, copies_;
  HugeBuffer elements_, output_;
};

}  // namespace

BenchReport bench_encode(const EncodeCase& options, std::string_view command_line) {
  const HostCpu cpu = read_host_cpu();
  require_cpus(cpu, options.threads);
  EncodeBatch batch(options, cpu.last_level_cache_bytes);
  ThreadTeam team(std::span(cpu.cpus).first(static_cast<std::size_t>(options.threads)));
  Ceilings ceilings(team, batch.input_memory(), ceiling_pass_bytes(batch.input_bytes()));

  std::atomic<bool> refused{false};
  const Workload workload = [&](std::int64_t turn) {
    return team.run([&](int thread) {
      for (std::int64_t page = thread; page < batch.pages(); page += team.threads())
        if (!batch.encode(turn % batch.copies(), page)) refused = true;
    });
  };
  const auto times = run_interleaved({&workload, 1}, ceilings, options.runs);
  if (refused) throw Error("random K and V were refused by the encoder");
  for (std::int64_t page = 0; page < batch.pages(); ++page)
    if (!batch.verified(0, page)) throw Error(fmt::format("page {} does not verify", page));

  BenchReport report = begin_report(command_line, cpu, options.threads);
  report.add("operation", "encode");
  report.add("format", options.format.name);
  report.add("format_detail", describe(options.format.format));
  report.add("input", std::string(name(options.input)));
  report.add("kv_heads", options.kv_heads);
  report.add("head_dim", options.head_dim);
  report.add("page_tokens", options.page_tokens);
  report.add("pages_per_run", batch.pages());
  report.add("seed", options.seed);
  report.add("rotated_copies", batch.copies());
  report.add("page_bytes_per_run", batch.output_bytes());
  add_times(report, times.front(), batch.input_bytes());
  add_ceilings(report, ceilings);
  const auto bytes = static_cast<double>(batch.input_bytes());
  report.add("fraction_of_read_ceiling", times.front().fraction_of(ceilings.read_bytes(), bytes));
  report.add("fraction_of_copy_ceiling", times.front().fraction_of(ceilings.copied_bytes(), bytes));
  report.add("rounding_error_of_keys", batch.rounding_error(false));
  report.add("rounding_error_of_values", batch.rounding_error(true));
  return report;
}

}  // namespace modalkv
