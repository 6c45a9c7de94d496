// The two ways to move blocks; open_block_file chooses.
#pragma once

#include <memory>

#include "offload/block_file.hpp"
#include "offload/posix_file.hpp"

namespace modalkv {

/// Boost.Asio on io_uring. Throws Error where the kernel refuses to make a ring.
std::unique_ptr<BlockFile> make_uring_file(FileDescriptor file, std::size_t max_in_flight);

/// A few threads that pread and pwrite.
std::unique_ptr<BlockFile> make_threads_file(FileDescriptor file, std::size_t max_in_flight);

}  // namespace modalkv
