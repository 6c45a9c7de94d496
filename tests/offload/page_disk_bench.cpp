// Pages to and from disk beside raw transfers of the same size, depth and file system: pread and
// pwrite with O_DIRECT on as many threads. And what a call takes of the caller's thread.
#include <benchmark/benchmark.h>
#include <fcntl.h>

#include <atomic>
#include <thread>

#include "kernels/page_codec.hpp"
#include "offload/page_disk.hpp"
#include "offload/page_seal.hpp"
#include "tests/offload/aligned_memory.hpp"
#include "tests/offload/temporary_folder.hpp"

namespace modalkv {
namespace {

constexpr PageShape kShape{64, 32, 128, both(int4_token_head())};  // 272 KiB
constexpr std::int64_t kPages = 1024;
constexpr std::size_t kDepth = 16;

PageKey key(std::int64_t number) {
  return {{{1, 2, 3, static_cast<std::uint64_t>(number)}}, 0, 0, kShape};
}

std::vector<std::byte> some_page() {
  std::vector<std::byte> page(static_cast<std::size_t>(page_bytes(kShape)), std::byte{0x5a});
  write_trailer(kShape, {{{1, 2, 3, 4}}, 1, 64}, page);
  return page;
}

PageDiskConfig config(const std::string& directory, DiskBackend backend) {
  PageDiskConfig config;
  config.directory = directory;
  config.capacity_bytes = (kPages + 1) * stored_bytes(kShape);
  config.owner = {{1, 1, 1, 1}};
  config.max_page_bytes = page_bytes(kShape);
  config.max_transfers = kDepth;
  config.backend = backend;
  return config;
}

// One operation on each page, as many at a time as may be; the caller's time in calls of `submit`.
template <typename Submit>
Nanos on_all(PageDisk& disk, const Submit& submit) {
  Nanos calling_ns = 0;
  std::int64_t next = 0, ended = 0;
  while (ended < kPages) {
    Status status = Status::ok;
    const auto begin = std::chrono::steady_clock::now();
    if (next < kPages) status = submit(next).status;
    calling_ns += (std::chrono::steady_clock::now() - begin).count();
    if (next < kPages && status == Status::ok) {
      ++next;
    } else if (const auto completion = disk.next_completion(kSecond)) {
      if (completion->status != Status::ok) std::abort();
      ++ended;
    }
  }
  return calling_ns;
}

void report(benchmark::State& state, Nanos calling_ns) {
  state.SetBytesProcessed(state.iterations() * kPages * stored_bytes(kShape));
  state.counters["call_us"] =
      static_cast<double>(calling_ns) / 1e3 / static_cast<double>(state.iterations() * kPages);
}

// Into a file that has been written before, as a tier in use is.
void store_pages(benchmark::State& state, DiskBackend backend) {
  const std::vector<std::byte> page = some_page();
  TemporaryFolder folder(std::filesystem::current_path());
  PageDisk disk(config(folder.path(), backend));
  const auto store_all = [&] {
    return on_all(disk, [&](std::int64_t i) { return disk.store(key(i), page); });
  };
  store_all();
  Nanos calling_ns = 0;
  for (auto _ : state) {
    state.PauseTiming();
    on_all(disk, [&](std::int64_t i) { return disk.erase(key(i)); });
    state.ResumeTiming();
    calling_ns += store_all();
  }
  report(state, calling_ns);
}

void load_pages(benchmark::State& state, DiskBackend backend) {
  const std::vector<std::byte> page = some_page();
  TemporaryFolder folder(std::filesystem::current_path());
  PageDisk disk(config(folder.path(), backend));
  on_all(disk, [&](std::int64_t i) { return disk.store(key(i), page); });
  std::vector<std::vector<std::byte>> into(256, page);
  Nanos calling_ns = 0;
  for (auto _ : state)
    calling_ns += on_all(disk, [&](std::int64_t i) {
      return disk.load(key(i * 617 % kPages), into[static_cast<std::size_t>(i) % into.size()]);
    });
  report(state, calling_ns);
}

void raw(benchmark::State& state, bool writes) {
  TemporaryFolder folder(std::filesystem::current_path());
  const Bytes bytes = stored_bytes(kShape);
  const int fd = ::open((folder / "raw").c_str(), O_RDWR | O_CREAT | O_DIRECT, 0600);
  if (fd < 0) return state.SkipWithError("no direct I/O here");
  const auto all = [&](bool write) {
    std::atomic<std::int64_t> next = 0;
    std::vector<std::jthread> threads;
    for (std::size_t t = 0; t < kDepth; ++t)
      threads.emplace_back([&] {
        const AlignedMemory memory(bytes);
        for (std::int64_t i = next++; i < kPages; i = next++) {
          const ::off_t at = i * 617 % kPages * bytes;
          const auto count = static_cast<std::size_t>(bytes);
          if ((write ? ::pwrite(fd, memory.data(), count, at)
                     : ::pread(fd, memory.data(), count, at)) != bytes)
            std::abort();
        }
      });
    threads.clear();
    if (write && ::fdatasync(fd) != 0) std::abort();
  };
  all(true);
  for (auto _ : state) all(writes);
  report(state, 0);
  ::close(fd);
}

#define MODALKV_BENCH(function, name, argument) \
  BENCHMARK_CAPTURE(function, name, argument)->Unit(benchmark::kMillisecond)->UseRealTime()

MODALKV_BENCH(raw, write, true);
MODALKV_BENCH(store_pages, io_uring, DiskBackend::io_uring);
MODALKV_BENCH(store_pages, threads, DiskBackend::threads);
MODALKV_BENCH(raw, read, false);
MODALKV_BENCH(load_pages, io_uring, DiskBackend::io_uring);
MODALKV_BENCH(load_pages, threads, DiskBackend::threads);

}  // namespace
}  // namespace modalkv

BENCHMARK_MAIN();
