#include "offload/log_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include "offload/posix_file.hpp"

namespace modalkv {
namespace {

Status write_all(int fd, Bytes offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ::ssize_t written = ::pwrite(fd, bytes.data(), bytes.size(), offset);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return status_of_errno(errno);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
    offset += written;
  }
  return Status::ok;
}

Status status_of(int result) {
  return result == 0 ? Status::ok : status_of_errno(errno);
}

class PosixLogFile final : public LogFile {
 public:
  PosixLogFile(const std::string& directory, const std::string& name)
      : path_(directory + "/" + name),
        replacement_(path_ + ".new"),
        directory_(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)),
        file_(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)) {
    if (!directory_.is_open()) throw_errno(directory, "cannot be opened");
    if (!file_.is_open()) throw_errno(path_, "cannot be opened");
  }

  std::vector<std::byte> read() override {
    struct stat status {};
    if (::fstat(file_.get(), &status) != 0) throw_errno(path_, "cannot be looked at");
    if (!S_ISREG(status.st_mode)) throw Error(path_ + ": not a regular file");
    std::vector<std::byte> bytes(static_cast<std::size_t>(status.st_size));
    std::size_t at = 0;
    while (at < bytes.size()) {
      const ::ssize_t got =
          ::pread(file_.get(), &bytes[at], bytes.size() - at, static_cast<::off_t>(at));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) throw_errno(path_, "cannot be read");
      if (got == 0) break;
      at += static_cast<std::size_t>(got);
    }
    bytes.resize(at);
    return bytes;
  }

  Status write(Bytes offset, std::span<const std::byte> bytes) override {
    return write_all(file_.get(), offset, bytes);
  }

  Status sync() override { return status_of(::fdatasync(file_.get())); }

  Status replace(std::span<const std::byte> bytes) override {
    FileDescriptor file(::open(replacement_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (!file.is_open()) return status_of_errno(errno);
    Status status = write_all(file.get(), 0, bytes);
    if (status == Status::ok) status = status_of(::fsync(file.get()));
    if (status == Status::ok) status = status_of(::rename(replacement_.c_str(), path_.c_str()));
    if (status != Status::ok) {
      ::unlink(replacement_.c_str());
      return status;
    }
    file_ = std::move(file);
    status = status_of(::fsync(directory_.get()));
    lost_ = status != Status::ok;
    return status;
  }

  bool lost() const override { return lost_; }

 private:
  const std::string path_, replacement_;
  const FileDescriptor directory_;
  FileDescriptor file_;
  bool lost_ = false;
};

}  // namespace

std::unique_ptr<LogFile> open_log_file(const std::string& directory, const std::string& name) {
  return std::make_unique<PosixLogFile>(directory, name);
}

}  // namespace modalkv
