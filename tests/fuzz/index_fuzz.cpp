// The index of pages on disk. The first byte chooses what becomes of the rest, a log: as it is, or
// with every record sealed again and chained, so that damage gets past the checksums. What was
// read must be pages, fewer than records, and say the same once it is written anew.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/checksum.hpp"
#include "offload/index_log.hpp"
#include "offload/little_endian.hpp"

namespace modalkv {
namespace {

constexpr ContentId kOwner{{1, 2, 3, 4}};
constexpr std::size_t kRecord = kIndexRecordBytes;
constexpr std::size_t kChecksum = kRecord - 8;

void check(bool holds) {
  if (!holds) std::abort();
}

void seal_all(std::span<std::byte> log) {
  std::uint64_t chain = 0;
  for (std::size_t at = 0; at + kRecord <= log.size(); at += kRecord) {
    const std::span<std::byte> record = log.subspan(at, kRecord);
    if (at > 0) put(record, 0, chain);
    chain = checksum(record.first(kChecksum));
    put(record, kChecksum, chain);
  }
}

void run(std::span<const std::byte> log) {
  const RecoveredIndex read = parse_index(log, kOwner, "fuzz");
  check(read.read_bytes >= 0 &&
        read.read_bytes + read.lost_bytes == static_cast<Bytes>(log.size()));
  check(static_cast<Bytes>(read.pages.size()) <=
        std::max(Bytes{0}, read.read_bytes / kIndexRecordBytes - 1));
  for (const StoredPage& page : read.pages) check(is_key(page.key));
  const auto anew = write_index(kOwner, read.pages, read.next_generation);
  const RecoveredIndex again = parse_index(anew, kOwner, "fuzz");
  check(std::is_permutation(again.pages.begin(), again.pages.end(), read.pages.begin(),
                            read.pages.end()));
  check(again.next_generation == read.next_generation);
  check(again.lost_bytes == 0);
}

}  // namespace
}  // namespace modalkv

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace modalkv;
  if (size == 0) return 0;
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  std::vector<std::byte> log(bytes + 1, bytes + size);
  if (data[0] % 2 == 1) seal_all(log);
  try {
    run(log);
  } catch (const Error& error) {
    const std::string_view message = error.what();
    check(message.starts_with("fuzz:") && message.find('\n') == std::string_view::npos);
  }
  return 0;
}
