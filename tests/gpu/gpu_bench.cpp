#include "tests/gpu/gpu_bench.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <stdexcept>
#include <thread>

#include "kernels/effects.hpp"
#include "kernels/number.hpp"
#include "modalkv/error.hpp"
#include "modalkv/format.hpp"
#include "offload/cuda/cuda_device.hpp"

namespace modalkv {
namespace {

constexpr int kRuns = 7;

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

class GpuBench {
 public:
  GpuBench(GpuDriver& driver, double scale)
      : driver_(driver),
        scale_(scale),
        up_(driver.make_stream(true)),
        down_(driver.make_stream(true)),
        compute_(driver.make_stream(false)),
        device_(driver.make_device_memory(scaled(4 * kGiB))),
        host_(driver.make_pinned(scaled(2 * kGiB))) {
    std::span<std::byte> words = driver.make_pinned(4096);
    for (GpuWord*& word : words_) {
      word = new (words.data()) GpuWord(0);
      words = words.subspan(64);
    }
    status_ = reinterpret_cast<std::uint32_t*>(words.data());
  }

  std::vector<Measured> measure() {
    ceilings();
    link();
    attention();
    submission();
    encode();
    return std::move(all_);
  }

 private:
  using Work = std::function<void()>;

  Bytes scaled(Bytes bytes) const {
    return std::max(round_up(static_cast<Bytes>(static_cast<double>(bytes) * scale_), kMiB), kMiB);
  }

  static void must(GpuResult result) {
    if (result != GpuResult::ok) throw Error("GPU: a call failed in a benchmark");
  }
  static void must(Status status) {
    if (status != Status::ok) throw Error("GPU: a group failed in a benchmark");
  }

  // All that streams were given has ended.
  void wait(std::initializer_list<GpuStream> streams) {
    ++round_;
    std::size_t i = 0;
    for (const GpuStream stream : streams) must(driver_.write_word(stream, *words_[i++], round_));
    for (i = 0; i < streams.size(); ++i)
      while (words_[i]->load(std::memory_order_acquire) < round_) std::this_thread::yield();
    if (*status_ != 0) throw Error("GPU: an operation failed in a benchmark");
  }

  // Gigabytes a second.
  void rate(const std::string& what, Bytes bytes, std::initializer_list<GpuStream> streams,
            const Work& work) {
    std::vector<double> rates;
    for (int run = 0; run <= kRuns; ++run) {
      const auto begin = std::chrono::steady_clock::now();
      work();
      wait(streams);
      if (run > 0) rates.push_back(static_cast<double>(bytes) / seconds_since(begin) / 1e9);
    }
    std::sort(rates.begin(), rates.end());
    all_.push_back({what, rates[rates.size() / 2], rates.back(), "GB/s"});
  }

  void launch(std::span<const Op> ops) {
    std::byte* spaces[] = {device_.data()};
    must(driver_.launch(compute_, ops, spaces, status_));
  }

  void ceilings() {
    const auto half = device_.size() / 2;
    const GpuCopy copy{device_.data() + half, device_.data(), half};
    rate("device memory, copy (read + write)", static_cast<Bytes>(2 * half), {compute_}, [&] {
      must(driver_.copy(compute_, {&copy, 1}));
    });
    const auto bytes = static_cast<Bytes>(half);
    const Op sum = Checksum{{{0}, 0, bytes}, {{0}, bytes, 8}};
    rate("device memory, checksum (read)", bytes, {compute_}, [&] { launch({&sum, 1}); });
    const Op fill = Fill{{{0}, 0, bytes}, 0};
    rate("device memory, fill (write)", bytes, {compute_}, [&] { launch({&fill, 1}); });
    const auto begin = std::chrono::steady_clock::now();
    const int rounds = 1000;
    for (int i = 0; i < rounds; ++i) wait({compute_});
    all_.push_back({"a word written and seen by the host", seconds_since(begin) / rounds * 1e6,
                    seconds_since(begin) / rounds * 1e6, "us"});
  }

  // Pieces that are no neighbours.
  std::vector<GpuCopy> pieces(bool to_device, Bytes piece, Bytes total, Bytes from) const {
    std::vector<GpuCopy> copies;
    for (Bytes at = 0; at + 2 * piece <= 2 * total; at += 2 * piece) {
      std::byte* gpu = device_.data() + from + at;
      std::byte* host = host_.data() + from + at;
      copies.push_back(
          {to_device ? gpu : host, to_device ? host : gpu, static_cast<std::size_t>(piece)});
    }
    return copies;
  }

  void link() {
    // Two areas of pieces with as long gaps, one a direction.
    const Bytes area = static_cast<Bytes>(host_.size()) / 2;
    for (const Bytes piece : {4 * kKiB, 8 * kKiB, 16 * kKiB, 32 * kKiB, 64 * kKiB, 128 * kKiB,
                              256 * kKiB, kMiB, 4 * kMiB, 64 * kMiB}) {
      const Bytes total = std::min(area / 2, piece * 8192) / piece * piece;
      if (total < piece) continue;
      const auto in = pieces(true, piece, total, 0), out = pieces(false, piece, total, area);
      const std::string size = std::to_string(piece / kKiB) + " KiB";
      rate("link h2d, pieces of " + size, total, {up_}, [&] { must(driver_.copy(up_, in)); });
      rate("link d2h, pieces of " + size, total, {down_}, [&] { must(driver_.copy(down_, out)); });
      rate("link both at once, pieces of " + size + ", sum", 2 * total, {up_, down_}, [&] {
        must(driver_.copy(up_, in));
        must(driver_.copy(down_, out));
      });
    }
  }

  struct Shape {
    int query_heads, kv_heads, batch;
    Tokens tokens;  ///< of a sequence
  };

  // One random page of a format at the begin of the device's memory, `count` times.
  void fill_pages(const PageShape& shape, std::int64_t count) {
    const Bytes bytes = page_bytes(shape);
    const std::int64_t elements = shape.tokens * shape.kv_heads * shape.head_dim;
    std::vector<std::byte> memory(static_cast<std::size_t>(2 * elements * 2 + 64 + bytes + 64));
    const Bytes shift =
        64 - static_cast<Bytes>(reinterpret_cast<std::uintptr_t>(memory.data()) % 64);
    auto* rows = reinterpret_cast<std::uint16_t*>(memory.data() + shift);
    std::uint32_t state = 1;
    for (std::int64_t i = 0; i < 2 * elements; ++i) {
      state = state * 1664525 + 1013904223;
      rows[i] = to_fp16(static_cast<float>(static_cast<int>(state >> 16) - 32768) / 16384);
    }
    const Bytes page_at = round_up(4 * elements, 64);
    Encode encode{.keys = {{0}, 0, 2 * elements},
                  .values = {{0}, 2 * elements, 2 * elements},
                  .page = {{0}, page_at, bytes}};
    encode.shape = shape;
    encode.tokens = shape.tokens;
    std::byte* space = memory.data() + shift;
    if (perform(encode, {&space, 1}) != Status::ok) throw Error("a page cannot be encoded");
    std::copy_n(space + page_at, bytes, host_.data());
    std::vector<GpuCopy> copies;
    for (std::int64_t i = 0; i < count; ++i)
      copies.push_back({device_.data() + i * bytes, host_.data(), static_cast<std::size_t>(bytes)});
    must(driver_.copy(up_, copies));
    wait({up_});
  }

  void to_device(Bytes offset, const void* from, Bytes bytes) {
    std::copy_n(static_cast<const std::byte*>(from), bytes, host_.data());
    const GpuCopy copy{device_.data() + offset, host_.data(), static_cast<std::size_t>(bytes)};
    must(driver_.copy(up_, {&copy, 1}));
    wait({up_});
  }

  // Decode: one query a sequence, a batch in one call.
  void attention() {
    const std::pair<const char*, KvFormat> formats[] = {{"INT4", both(int4_token_head())},
                                                        {"FP16", both(fp16())},
                                                        {"INT8", both(int8_token_head())},
                                                        {"INT2 g64", both(int2_grouped(64))}};
    for (const Shape& of :
         {Shape{32, 32, 16, 4096}, Shape{28, 4, 64, 8192}, Shape{28, 4, 1, 16384}})
      for (const auto& [format_name, format] : formats) {
        const PageShape shape{
            .tokens = 64, .kv_heads = of.kv_heads, .head_dim = 128, .format = format};
        const Tokens tokens = std::max<Tokens>(
            64, static_cast<Tokens>(static_cast<double>(of.tokens) * scale_) / 64 * 64);
        const int batch = scale_ < 1 ? 1 : of.batch;
        const std::int64_t pages = tokens / 64;
        const Bytes bytes = page_bytes(shape), area = batch * pages * bytes;
        const std::int64_t rows = of.query_heads;
        const Bytes tables = round_up(area, 256),
                    queries = tables + round_up(batch * pages * 8, 256);
        const Bytes query = rows * 128 * 2, partials = queries + round_up(batch * query, 256);
        if (partials + batch * partial_bytes(rows, 128) > static_cast<Bytes>(device_.size()))
          continue;
        fill_pages(shape, batch * pages);
        std::vector<std::int64_t> table(static_cast<std::size_t>(batch * pages));
        // No sequence's pages are neighbours, as after hours of serving.
        for (std::size_t i = 0; i < table.size(); ++i)
          table[i] = static_cast<std::int64_t>((i * 7919) % table.size()) * bytes;
        to_device(tables, table.data(), static_cast<Bytes>(table.size() * 8));
        const std::vector<std::uint16_t> ones(static_cast<std::size_t>(batch * rows * 128),
                                              to_fp16(0.5f));
        to_device(queries, ones.data(), static_cast<Bytes>(ones.size() * 2));
        std::vector<Op> ops;
        for (int b = 0; b < batch; ++b) {
          Attend attend{
              .queries = {{0}, queries + b * query, query},
              .pages = {{0}, 0, area},
              .page_table = {{0}, tables + b * pages * 8, pages * 8},
              .partials = {{0}, partials + b * partial_bytes(rows, 128), partial_bytes(rows, 128)}};
          attend.shape = shape;
          attend.tokens = tokens;
          attend.query_heads = of.query_heads;
          attend.query_tokens = 1;
          attend.logit_scale = 1 / std::sqrt(128.0f);
          ops.push_back(attend);
        }
        rate("decode attention " + std::string(format_name) + ", " +
                 std::to_string(of.query_heads) + "/" + std::to_string(of.kv_heads) + " heads, " +
                 std::to_string(batch) + " x " + std::to_string(tokens) + " tokens, " +
                 std::to_string(area / kMiB) + " MiB",
             area, {compute_}, [&] { launch(ops); });
      }
  }

  // The host's time for a decode step of as many layers, each of which attends and finishes.
  void submission() {
    for (const int layers : {8, 32, 80}) {
      CudaDevice device(driver_, standard_queues(1));
      const QueueId compute = find_queue(device, QueueKind::compute).value();
      const auto size = static_cast<Bytes>(device_.size());
      must(device.register_space({SpaceInfo::Kind::device, size, device_.data()}).status);
      const PageShape shape{.tokens = 64, .kv_heads = 4, .head_dim = 128, .format = both(fp16())};
      const Bytes page = page_bytes(shape), query = 28 * 128 * 2, partial = partial_bytes(28, 128);
      const Bytes zeros = page + 64 + query;
      std::vector<Op> step;
      for (int layer = 0; layer < layers; ++layer) {
        Attend attend{.queries = {{0}, page + 64, query},
                      .pages = {{0}, 0, page},
                      .page_table = {{0}, page, 8},
                      .partials = {{0}, zeros + layer * partial, partial}};
        attend.shape = shape;
        attend.tokens = 64;
        attend.query_heads = 28;
        attend.query_tokens = 1;
        step.push_back(attend);
        const Bytes outputs = zeros + layers * partial + layer * query;
        step.push_back(Finish{attend.partials, {{0}, outputs, query}, {}, 28, 128});
      }
      const Op clear = Fill{{{0}, 0, zeros}, 0};
      launch({&clear, 1});
      wait({compute_});
      const Prepared prepared = device.prepare(compute, step);
      must(prepared.status);
      const std::string what = "submission of " + std::to_string(layers) + " attends, ";
      host_time(device, what + "plain", [&] { return device.submit(compute, step, {}); });
      host_time(device, what + "prepared", [&] { return device.submit(prepared.group, {}); });
    }
  }

  // Microseconds of one call, while the GPU has nothing else to do.
  void host_time(Device& device, const std::string& what,
                 const std::function<Submitted()>& submit) {
    std::vector<double> times;
    for (int run = 0; run <= 7 * kRuns; ++run) {
      const auto begin = std::chrono::steady_clock::now();
      must(submit().status);
      if (run > 0) times.push_back(seconds_since(begin) * 1e6);
      while (const auto completion = device.next_completion(10 * kSecond)) must(completion->status);
    }
    std::sort(times.begin(), times.end());
    all_.push_back({what, times[times.size() / 2], times.front(), "us"});
  }

  // Bytes of the rows.
  void encode() {
    for (const auto& [format_name, format] :
         {std::pair{"INT4", both(int4_token_head())}, std::pair{"INT2 g64", both(int2_grouped(64))},
          std::pair{"FP16", both(fp16())}})
      for (const int heads : {32, 4}) {
        const PageShape shape{.tokens = 64, .kv_heads = heads, .head_dim = 128, .format = format};
        const std::int64_t pages = std::max<std::int64_t>(1, scaled(kGiB) / (64 * heads * 128 * 4));
        const Bytes rows = 64 * heads * 128 * 2, bytes = page_bytes(shape);
        if (pages * (2 * rows + bytes) > static_cast<Bytes>(device_.size())) continue;
        const Op zeros = Fill{{{0}, 0, pages * 2 * rows}, 0x15};  // finite in both 16-bit formats
        launch({&zeros, 1});
        std::vector<Op> ops;
        for (std::int64_t p = 0; p < pages; ++p) {
          Encode one{.keys = {{0}, p * 2 * rows, rows},
                     .values = {{0}, p * 2 * rows + rows, rows},
                     .page = {{0}, pages * 2 * rows + p * bytes, bytes}};
          one.shape = shape;
          one.tokens = 64;
          ops.push_back(one);
        }
        rate("encode to " + std::string(format_name) + ", " + std::to_string(heads) +
                 " KV heads, of 16-bit rows",
             pages * 2 * rows, {compute_}, [&] { launch(ops); });
      }
  }

  GpuDriver& driver_;
  const double scale_;
  GpuStream up_, down_, compute_;
  std::span<std::byte> device_, host_;
  GpuWord* words_[3] = {};
  std::uint32_t* status_ = nullptr;
  std::uint64_t round_ = 0;
  std::vector<Measured> all_;
};

}  // namespace

std::vector<Measured> measure_gpu(GpuDriver& driver, double scale) {
  return GpuBench(driver, scale).measure();
}

}  // namespace modalkv
