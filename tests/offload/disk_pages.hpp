// Pages that say who they are: every byte follows from the key and a version.
#pragma once

#include <cstring>
#include <optional>
#include <random>
#include <span>
#include <vector>

#include "kernels/page_codec.hpp"
#include "offload/page_disk.hpp"

namespace modalkv {

inline constexpr Nanos kLongWait = 30 * kSecond;  // a bound that is not expected to be met

/// Two sizes: two blocks and four on disk.
inline PageShape small_shape() {
  return {16, 2, 64, both(fp16())};
}
inline PageShape large_shape() {
  return {32, 2, 64, both(int8_token_head())};
}

/// The same for the same number; neighbours differ in one field only.
inline PageKey numbered_key(std::uint64_t number) {
  const std::uint64_t field = number / 2 % 3;
  PageKey key{{{1, 0, 0, 2 + number / 6}}, 3, 4, number % 2 == 0 ? small_shape() : large_shape()};
  key.layer += field == 1;
  key.page += field == 2;
  return key;
}

inline std::vector<std::byte> numbered_page(std::uint64_t number, std::uint64_t version) {
  const PageKey key = numbered_key(number);
  std::vector<std::byte> page(static_cast<std::size_t>(page_bytes(key.shape)));
  std::mt19937_64 random(number * 1'000'003 + version);
  for (std::size_t at = 0; at < page.size(); at += 8) {
    const std::uint64_t word = random();
    std::memcpy(&page[at], &word, 8);
  }
  write_trailer(key.shape, {key.content, version, 16}, page);
  return page;
}

inline PageDiskConfig small_disk(const std::string& directory, Bytes blocks = 256) {
  PageDiskConfig config;
  config.directory = directory;
  config.capacity_bytes = blocks * kBlockBytes;
  config.owner = {{7, 7, 7, 7}};
  config.max_page_bytes = std::max(page_bytes(small_shape()), page_bytes(large_shape()));
  config.max_pages = 4096;
  config.max_operations = 32;
  config.max_transfers = 8;
  config.timeout_ns = kLongWait;
  config.min_compact_bytes = 16 * kIndexRecordBytes;
  return config;
}

/// Waits for the completion of an operation that was taken over; else what refused it.
inline Status outcome(PageDisk& disk, const Submitted& submitted) {
  if (submitted.status != Status::ok) return submitted.status;
  const auto completion = disk.next_completion(kLongWait);
  if (!completion || completion->ticket != submitted.ticket) std::abort();
  return completion->status;
}

inline Status store(PageDisk& disk, std::uint64_t number, std::uint64_t version = 0) {
  const std::vector<std::byte> page = numbered_page(number, version);
  return outcome(disk, disk.store(numbered_key(number), page));
}

struct Loaded {
  Status status = Status::ok;
  std::vector<std::byte> page;
};

inline Loaded load(PageDisk& disk, std::uint64_t number) {
  const PageKey key = numbered_key(number);
  Loaded loaded;
  loaded.page.resize(static_cast<std::size_t>(page_bytes(key.shape)));
  loaded.status = outcome(disk, disk.load(key, loaded.page));
  return loaded;
}

}  // namespace modalkv
