// Files that appear whole or not at all.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace modalkv {

/// Writes `text` beside `path` and renames it over `path`; a link's target, not the link, and a
/// device or pipe in place. Throws Error, one line, and leaves a file as it was.
void write_file(const std::filesystem::path& path, std::string_view text);

/// A set of files for one folder, written to a hidden folder beside it and put in place together by
/// `commit`. Without `commit` the destructor removes what was written. Not thread-safe.
class OutputFolder {
 public:
  /// Makes sure now that the folder can be written, before long work. Throws Error.
  explicit OutputFolder(const std::filesystem::path& folder);
  ~OutputFolder();
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

  /// Throws Error, for example on a full disk; nothing of the set is in place then.
  void write(std::string_view file_name, std::string_view text);
  void commit();

 private:
  std::filesystem::path folder_, staging_;
};

}  // namespace modalkv
