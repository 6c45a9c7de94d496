// How fast pages are encoded and verified, from input larger than the last-level cache, beside what
// the same memory does for reading and for copying. Bytes are those of the 16-bit input.
#include <benchmark/benchmark.h>

#include <cstring>
#include <string>
#include <vector>

#include "kernels/checksum.hpp"
#include "kernels/encode_targets.hpp"
#include "tests/kernels/bench_memory.hpp"

namespace modalkv {
namespace {

constexpr Bytes kInputBytes = 256 * kMiB;  // K and V

ElementFormat per_channel(ElementFormat format) {
  format.per_channel = true;
  return format;
}

// K and V of a long sequence, and its pages one after another.
class Sequence {
 public:
  explicit Sequence(const PageShape& shape)
      : shape_(shape),
        rows_(std::int64_t{shape.kv_heads} * shape.head_dim),
        pages_(kInputBytes / (4 * rows_ * shape.tokens)),
        keys_(random_fp16(pages_ * shape.tokens * rows_)),
        values_(keys_),
        to_(static_cast<std::size_t>(pages_ * page_bytes(shape))) {
    for (std::uint16_t& value : values_) value ^= 0x8155;
  }

  EncodeRequest request(std::int64_t page) {
    const auto rows = [&](const std::vector<std::uint16_t>& all) {
      return Rows{all.data() + page * shape_.tokens * rows_, rows_, shape_.head_dim};
    };
    const auto bytes = static_cast<std::size_t>(page_bytes(shape_));
    return {shape_,
            rows(keys_),
            rows(values_),
            {{}, 1, static_cast<std::uint32_t>(shape_.tokens)},
            {},
            {},
            std::span(to_).subspan(static_cast<std::size_t>(page) * bytes, bytes)};
  }

  std::int64_t pages() const { return pages_; }
  Bytes input_bytes() const { return 4 * rows_ * shape_.tokens; }

 private:
  PageShape shape_;
  std::int64_t rows_, pages_;
  std::vector<std::uint16_t> keys_, values_;
  std::vector<std::byte> to_;
};

void encode(benchmark::State& state, const EncodeTarget& target, const PageShape& shape) {
  Sequence sequence(shape);
  std::int64_t page = 0;
  for (auto _ : state) {
    if (!target.encode(sequence.request(page))) state.SkipWithError("not encoded");
    page = (page + 1) % sequence.pages();
  }
  state.SetBytesProcessed(state.iterations() * sequence.input_bytes());
}

void verify(benchmark::State& state, const EncodeTarget& target) {
  const std::vector<std::byte> bytes(static_cast<std::size_t>(kInputBytes), std::byte{5});
  constexpr std::size_t kPage = 64 * 1024;
  std::size_t at = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(target.checksum(std::span(bytes).subspan(at, kPage)));
    at = (at + kPage) % bytes.size();
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(kPage));
}

void copy_ceiling(benchmark::State& state) {
  const std::vector<std::byte> from(static_cast<std::size_t>(kInputBytes), std::byte{3});
  std::vector<std::byte> to(from.size());
  for (auto _ : state) {
    std::memcpy(to.data(), from.data(), from.size());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * kInputBytes);
}

void register_all() {
  benchmark::RegisterBenchmark("read_ceiling",
                               [](benchmark::State& state) { read_ceiling(state, kInputBytes); });
  benchmark::RegisterBenchmark("copy_ceiling", copy_ceiling);
  const struct {
    const char* name;
    KvFormat format;
  } formats[] = {
      {"int4_token_head", both(int4_token_head())},
      {"int4_per_channel", both(per_channel(int4_token_head()))},
      {"int8_token_head", both(int8_token_head())},
      {"int2_group32", both(int2_grouped(32))},
      {"int4_rotated64", {int4_token_head(), int4_token_head(), 64}},
      {"fp8", both(fp8_e4m3())},
      {"nvfp4", both(nvfp4())},
      {"fp16", both(fp16())},
  };
  for (const EncodeTarget* each : encode_targets()) {
    const EncodeTarget& target = *each;
    benchmark::RegisterBenchmark(("checksum/" + std::string(target.name)).c_str(),
                                 [&target](benchmark::State& state) { verify(state, target); });
    for (const auto& [name, format] : formats)
      for (const int kv_heads : {4, 32})
        for (const Tokens tokens : {16, 64, 128}) {
          const PageShape shape{tokens, kv_heads, 128, format};
          benchmark::RegisterBenchmark(
              ("encode/" + std::string(target.name) + "/" + name + "/" + std::to_string(kv_heads) +
               "_heads/" + std::to_string(tokens) + "_tokens")
                  .c_str(),
              [&target, shape](benchmark::State& state) { encode(state, target, shape); });
        }
  }
}

}  // namespace
}  // namespace modalkv

int main(int argc, char** argv) {
  modalkv::register_all();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
