// A file descriptor that closes itself, and what an error number means to a caller.
#pragma once

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "modalkv/error.hpp"

namespace modalkv {

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd = -1) : fd_(fd) {}
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(other.release()) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }

  int get() const { return fd_; }
  bool is_open() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

inline Status status_of_errno(int error) {
  return error == ENOSPC || error == EDQUOT ? Status::no_space : Status::io_error;
}

[[noreturn]] inline void throw_errno(const std::string& path, const std::string& what) {
  const int error = errno;
  throw Error(path + ": " + what + ": " + std::strerror(error));
}

}  // namespace modalkv
