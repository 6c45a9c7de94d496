#include "tools/report/output_folder.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "modalkv/error.hpp"

namespace modalkv {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const fs::path& path, int error) {
  throw Error(fmt::format("{}: cannot be written: {}", path.string(), std::strerror(error)));
}

// Returns errno, or 0. What was written before an error stays.
int write_whole(const fs::path& path, std::string_view text) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file < 0) return errno;
  int error = 0;
  while (!text.empty() && error == 0) {
    const ssize_t written = ::write(file, text.data(), text.size());
    if (written > 0) {
      text.remove_prefix(static_cast<std::size_t>(written));
    } else if (errno != EINTR) {
      error = errno;
    }
  }
  if (::close(file) != 0 && error == 0) error = errno;
  return error;
}

fs::path beside(const fs::path& path) {
  fs::path whole = fs::absolute(path).lexically_normal();
  if (!whole.has_filename()) whole = whole.parent_path();
  return whole.parent_path() / fmt::format(".{}.partial-{}", whole.filename().string(), ::getpid());
}

}  // namespace

void write_file(const fs::path& path, std::string_view text) {
  std::error_code failed;
  fs::path target = path;
  if (fs::exists(path, failed)) {
    // A device or a pipe is written as it is: renaming a file over it would destroy it.
    if (!fs::is_regular_file(path, failed)) {
      if (const int error = write_whole(path, text)) fail(path, error);
      return;
    }
    target = fs::canonical(path, failed);
    if (failed) fail(path, failed.value());
  }
  const fs::path partial = beside(target);
  int error = write_whole(partial, text);
  if (error == 0) {
    fs::rename(partial, target, failed);
    error = failed.value();
  }
  if (error == 0) return;
  ::unlink(partial.c_str());
  fail(path, error);
}

OutputFolder::OutputFolder(const fs::path& folder) : folder_(folder), staging_(beside(folder)) {
  std::error_code failed;
  fs::create_directories(staging_.parent_path(), failed);
  if (failed) fail(folder_, failed.value());
  if (fs::exists(folder_, failed) && !fs::is_directory(folder_, failed)) fail(folder_, ENOTDIR);
  if (fs::is_directory(folder_, failed) && ::access(folder_.c_str(), W_OK | X_OK) != 0)
    fail(folder_, errno);
  fs::create_directory(staging_, failed);
  if (failed) fail(folder_, failed.value());
}

OutputFolder::~OutputFolder() {
  std::error_code ignored;
  fs::remove_all(staging_, ignored);
}

void OutputFolder::write(std::string_view file_name, std::string_view text) {
  if (const int error = write_whole(staging_ / file_name, text)) fail(folder_ / file_name, error);
}

void OutputFolder::commit() {
  std::error_code failed;
  if (!fs::exists(folder_)) {
    fs::rename(staging_, folder_, failed);
    if (failed) fail(folder_, failed.value());
    return;
  }
  for (const auto& entry : fs::directory_iterator(staging_)) {
    const fs::path target = folder_ / entry.path().filename();
    if (fs::is_directory(target)) fail(target, EISDIR);
  }
  for (const auto& entry : fs::directory_iterator(staging_)) {
    fs::rename(entry.path(), folder_ / entry.path().filename(), failed);
    if (failed) fail(folder_ / entry.path().filename(), failed.value());
  }
}

}  // namespace modalkv
