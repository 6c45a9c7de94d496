// The files of a directory of pages, and the lock that makes it one process's.
#pragma once

#include <memory>
#include <string>

#include "offload/block_file.hpp"
#include "offload/log_file.hpp"
#include "offload/posix_file.hpp"

namespace modalkv {

/// `index` (index_log.hpp), `pages` (page_seal.hpp) and `lock`. The kernel lets go of the lock when
/// the process is gone and its last transfer has ended.
struct DiskFiles {
  FileDescriptor lock;
  std::unique_ptr<LogFile> index;
  OpenedBlockFile pages;
};

/// Makes the directory if need be. Throws Error: not a directory, not writable, in use by another
/// process, no room.
DiskFiles open_disk_files(const std::string& directory, Bytes pages_bytes,
                          std::size_t max_in_flight, DiskBackend backend = DiskBackend::automatic);

}  // namespace modalkv
