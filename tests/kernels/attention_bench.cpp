// How fast one thread attends to 16 K tokens in memory, beside what the same memory does for
// reading. Bytes are those of the pages.
#include <benchmark/benchmark.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/attention_targets.hpp"
#include "kernels/encode_targets.hpp"
#include "tests/kernels/bench_memory.hpp"

namespace modalkv {
namespace {

constexpr Tokens kTokens = 16 * 1024;
constexpr Tokens kPageTokens = 64;
constexpr int kHeadDim = 128;
constexpr Bytes kPoolBytes = 512 * kMiB;  // larger than caches: what is attended to takes turns

// Copies of one page.
class Pool {
 public:
  explicit Pool(const PageShape& shape) : bytes_(static_cast<std::size_t>(kPoolBytes)) {
    const std::int64_t row = std::int64_t{shape.kv_heads} * shape.head_dim;
    const auto elements = random_fp16(2 * shape.tokens * row);
    const Rows keys{elements.data(), row, shape.head_dim};
    const Rows values{elements.data() + shape.tokens * row, row, shape.head_dim};
    const auto page = static_cast<std::size_t>(page_bytes(shape));
    encode_targets().front()->encode({shape,
                                      keys,
                                      values,
                                      {{}, 1, static_cast<std::uint32_t>(shape.tokens)},
                                      {},
                                      {},
                                      std::span(bytes_).first(page)});
    for (std::size_t at = 0; at + page <= bytes_.size(); at += page) {
      if (at != 0) std::memcpy(&bytes_[at], bytes_.data(), page);
      pages_.push_back(&bytes_[at]);
    }
  }
  std::span<const std::byte* const> pages() const { return pages_; }

 private:
  std::vector<std::byte> bytes_;
  std::vector<const std::byte*> pages_;
};

void attend(benchmark::State& state, const AttentionTarget& target, int query_heads,
            const PageShape& shape) {
  const Pool pool(shape);
  const auto elements = random_fp16(std::int64_t{query_heads} * kHeadDim);
  const Queries queries{.elements = elements.data(),
                        .heads = query_heads,
                        .token_stride = std::int64_t{query_heads} * kHeadDim,
                        .head_stride = kHeadDim,
                        .scale = 1 / std::sqrt(static_cast<float>(kHeadDim))};
  std::vector<float> partials(static_cast<std::size_t>(query_heads * (kHeadDim + 2)));
  constexpr auto pages = static_cast<std::size_t>(kTokens / kPageTokens);
  std::size_t first = 0;
  for (auto _ : state) {
    clear_partials(partials, query_heads, kHeadDim);
    const PageList list{
        .shape = shape, .pages = pool.pages().subspan(first, pages), .tokens = kTokens};
    target.attend(queries, list, 0, shape.kv_heads, partials);
    benchmark::DoNotOptimize(partials.data());
    first = first + 2 * pages <= pool.pages().size() ? first + pages : 0;
  }
  state.SetBytesProcessed(state.iterations() * page_bytes(shape) *
                          static_cast<std::int64_t>(pages));
}

void register_all() {
  benchmark::RegisterBenchmark("read_ceiling",
                               [](benchmark::State& state) { read_ceiling(state, kPoolBytes); });
  const struct {
    const char* name;
    ElementFormat format;
  } formats[] = {
      {"int2_group32", int2_grouped(32)},
      {"int4_token_head", int4_token_head()},
      {"int8_token_head", int8_token_head()},
      {"nvfp4", nvfp4()},
      {"fp8", fp8_e4m3()},
      {"bf16", bf16()},
      {"fp16", fp16()},
  };
  const struct {
    const char* name;
    int query_heads, kv_heads;
  } models[] = {{"32_32", 32, 32}, {"28_4", 28, 4}};
  for (const auto& [format_name, format] : formats)
    for (const auto& [model_name, query_heads, kv_heads] : models)
      for (const AttentionTarget& target : attention_targets()) {
        const PageShape shape{kPageTokens, kv_heads, kHeadDim, both(format)};
        benchmark::RegisterBenchmark(
            ("attend/" + std::string(format_name) + "/" + model_name + "/" +
             std::string(target.name))
                .c_str(),
            [&target, heads = query_heads, shape](benchmark::State& state) {
              attend(state, target, heads, shape);
            });
      }
}

}  // namespace
}  // namespace modalkv

int main(int argc, char** argv) {
  modalkv::register_all();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
