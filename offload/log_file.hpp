// What an append-only log lies in. Calls wait for the disk.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "modalkv/error.hpp"
#include "modalkv/units.hpp"

namespace modalkv {

class LogFile {
 public:
  virtual ~LogFile() = default;
  LogFile(const LogFile&) = delete;
  LogFile& operator=(const LogFile&) = delete;

  /// All of it; empty where there is none yet. Throws Error.
  virtual std::vector<std::byte> read() = 0;
  /// Survives a loss of power only once synced. Where it fails any part may have been written.
  virtual Status write(Bytes offset, std::span<const std::byte> bytes) = 0;
  virtual Status sync() = 0;
  /// The whole log becomes `bytes`, at once and durably. Where it fails the log is what it was;
  /// only after `io_error` of the very last step nobody knows, and `lost` says so.
  virtual Status replace(std::span<const std::byte> bytes) = 0;
  /// Which of two versions a loss of power would leave is unknown: nothing can be promised.
  virtual bool lost() const = 0;

 protected:
  LogFile() = default;
};

/// `name` in `directory`. A replacement is written beside it as `name`.new and renamed. Throws
/// Error.
std::unique_ptr<LogFile> open_log_file(const std::string& directory, const std::string& name);

}  // namespace modalkv
