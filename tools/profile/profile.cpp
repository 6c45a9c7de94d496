#include "tools/profile/profile.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "modalkv/error.hpp"

namespace modalkv {
namespace {

namespace fs = std::filesystem;

bool is_path(std::string_view name) {
  return name.find('/') != std::string_view::npos || name.ends_with(".json");
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator(folder, failed))
    if (entry.path().extension() == ".json") names.push_back(entry.path().stem().string());
  std::sort(names.begin(), names.end());
  return names;
}

// Edits that turn one word into the other.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substitute = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
    }
  }
  return row.back();
}

fs::path find_profile(std::string_view kind, std::string_view name) {
  if (is_path(name)) return fs::path(name);
  const fs::path folder = profile_folder() / kind;
  auto names = names_in(folder);
  if (std::binary_search(names.begin(), names.end(), name))
    return folder / fmt::format("{}.json", name);
  std::stable_sort(names.begin(), names.end(), [&](const std::string& a, const std::string& b) {
    return distance(a, name) < distance(b, name);
  });
  names.resize(std::min<std::size_t>(names.size(), 3));
  throw Error(fmt::format("no profile '{}' in {}; nearest: {}; all: modalkv inspect {}", name, kind,
                          fmt::join(names, ", "), kind));
}

}  // namespace

std::string read_text_file(const fs::path& path) {
  const auto fail = [&](std::string_view why) {
    throw Error(fmt::format("{}: cannot be read: {}", path.string(), why));
  };
  std::error_code failed;
  if (fs::is_directory(path, failed)) fail("it is a folder");
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"),
                                                             &std::fclose);
  if (file == nullptr) fail(std::strerror(errno));
  // Not a stream: what a disk stops giving halfway is an error here, not a shorter file.
  std::string text;
  std::array<char, 1 << 16> part;
  while (const std::size_t bytes = std::fread(part.data(), 1, part.size(), file.get()))
    text.append(part.data(), bytes);
  if (std::ferror(file.get()) != 0) fail(std::strerror(errno));
  return text;
}

fs::path profile_folder() {
  if (const char* named = std::getenv("MODALKV_PROFILE_DIR")) {
    if (fs::is_directory(fs::path(named) / "models")) return named;
    throw Error(fmt::format("MODALKV_PROFILE_DIR={}: there is no folder 'models' in it", named));
  }
  std::error_code failed;
  const fs::path program = fs::read_symlink("/proc/self/exe", failed).parent_path();
  for (fs::path folder = program;; folder = folder.parent_path()) {
    for (const char* candidate : {"share/modalkv", "tools"})
      if (fs::is_directory(folder / candidate / "models", failed)) return folder / candidate;
    if (folder == folder.parent_path()) break;
  }
  throw Error(
      "no profiles found beside the program; set MODALKV_PROFILE_DIR to the folder that holds "
      "'models' and 'hardware'");
}

ModelGeometry load_model(std::string_view name_or_path) {
  const fs::path path = find_profile("models", name_or_path);
  return parse_model(read_text_file(path), path.string());
}

HardwareProfile load_hardware(std::string_view name_or_path) {
  const fs::path path = find_profile("hardware", name_or_path);
  return parse_hardware(read_text_file(path), path.string());
}

std::vector<std::string> list_models() {
  return names_in(profile_folder() / "models");
}
std::vector<std::string> list_hardware() {
  return names_in(profile_folder() / "hardware");
}

}  // namespace modalkv
