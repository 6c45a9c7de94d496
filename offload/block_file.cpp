#include "offload/block_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <cstdlib>

#include "offload/block_file_backends.hpp"

namespace modalkv {
namespace {

struct OpenedDescriptor {
  FileDescriptor file;
  bool direct = false;
};

FileDescriptor open_with(const std::string& path, int flags) {
  return FileDescriptor(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | flags, 0600));
}

// Some file systems refuse O_DIRECT when opening, others only when reading.
bool reads_directly(const FileDescriptor& file) {
  if (!file.is_open()) return false;
  const std::unique_ptr<void, decltype(&std::free)> block(
      std::aligned_alloc(kBlockBytes, kBlockBytes), &std::free);
  return ::pread(file.get(), block.get(), kBlockBytes, 0) >= 0;
}

OpenedDescriptor open_descriptor(const std::string& path, Bytes bytes) {
  OpenedDescriptor opened{open_with(path, O_DIRECT), true};
  if (!reads_directly(opened.file)) opened = {open_with(path, 0), false};
  if (!opened.file.is_open()) throw_errno(path, "cannot be opened");
  struct stat status {};
  if (::fstat(opened.file.get(), &status) != 0) throw_errno(path, "cannot be looked at");
  if (!S_ISREG(status.st_mode)) throw Error(path + ": not a regular file");
  if (status.st_size != bytes && ::ftruncate(opened.file.get(), bytes) != 0)
    throw_errno(path, "cannot be made " + std::to_string(bytes) + " bytes long");
  return opened;
}

}  // namespace

Status BlockFile::submit(const BlockTransfer& transfer) {
  const auto whole_blocks = [](Bytes bytes) { return bytes >= 0 && bytes % kBlockBytes == 0; };
  if (!whole_blocks(transfer.offset) || !whole_blocks(transfer.bytes) || transfer.bytes == 0 ||
      transfer.memory == nullptr ||
      reinterpret_cast<std::uintptr_t>(transfer.memory) % kBlockBytes != 0)
    return Status::rejected;
  if (in_flight_ == max_in_flight_) return Status::busy;
  ++in_flight_;
  start(transfer);
  return Status::ok;
}

OpenedBlockFile open_block_file(const std::string& path, Bytes bytes, std::size_t max_in_flight,
                                DiskBackend backend) {
  if (bytes <= 0 || bytes % kBlockBytes != 0 || max_in_flight == 0)
    throw Error(path + ": a block file has whole blocks and something in flight");
  OpenedDescriptor opened = open_descriptor(path, bytes);
  OpenedBlockFile result{nullptr, backend, opened.direct, ""};
  std::string refused;
  if (backend != DiskBackend::threads) {
    try {
      result.file = make_uring_file(FileDescriptor(::dup(opened.file.get())), max_in_flight);
      result.backend = DiskBackend::io_uring;
    } catch (const Error& error) {
      if (backend == DiskBackend::io_uring) throw;
      refused = std::string(" (") + error.what() + ")";
    }
  }
  if (!result.file) {
    result.file = make_threads_file(std::move(opened.file), max_in_flight);
    result.backend = DiskBackend::threads;
  }
  result.description =
      (result.backend == DiskBackend::io_uring ? "io_uring" : "pread/pwrite threads" + refused) +
      (opened.direct ? ", direct I/O" : ", through the page cache (no direct I/O here)");
  return result;
}

}  // namespace modalkv
