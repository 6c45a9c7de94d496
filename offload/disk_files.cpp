#include "offload/disk_files.hpp"

#include <fcntl.h>
#include <sys/file.h>

#include <filesystem>

namespace modalkv {
namespace {

FileDescriptor lock_directory(const std::string& directory) {
  const std::string path = directory + "/lock";
  FileDescriptor lock(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock.is_open()) throw_errno(path, "cannot be opened");
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) == 0) return lock;
  if (errno != EWOULDBLOCK) throw_errno(path, "cannot be locked");
  throw Error(directory +
              ": in use by another process (or another store of this one); pages of a "
              "directory have one owner at a time");
}

}  // namespace

DiskFiles open_disk_files(const std::string& directory, Bytes pages_bytes,
                          std::size_t max_in_flight, DiskBackend backend) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (!std::filesystem::is_directory(directory))
    throw Error(directory + ": not a directory, and cannot be made one" +
                (error ? ": " + error.message() : std::string()));
  DiskFiles files;
  files.lock = lock_directory(directory);
  files.index = open_log_file(directory, "index");
  files.pages = open_block_file(directory + "/pages", pages_bytes, max_in_flight, backend);
  return files;
}

}  // namespace modalkv
