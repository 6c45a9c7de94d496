#include "offload/memory_room.hpp"

#include <fmt/format.h>

#include <charconv>
#include <fstream>
#include <limits>
#include <optional>
#include <string_view>
#include <vector>

namespace modalkv {
namespace {

namespace fs = std::filesystem;

std::optional<Bytes> number(std::string_view text) {
  Bytes value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end == text.data()) return std::nullopt;
  return value;
}

// A file of one number; "max" is none.
std::optional<Bytes> read_number(const fs::path& file) {
  std::string word;
  return std::ifstream(file) >> word ? number(word) : std::nullopt;
}

// The number after `key` in a file such as /proc/meminfo.
std::optional<Bytes> read_field(const fs::path& file, std::string_view key) {
  std::ifstream stream(file);
  for (std::string word; stream >> word;)
    if (word == key && stream >> word) return number(word);
  return std::nullopt;
}

class Least {
 public:
  void limit(std::optional<Bytes> bytes, std::string_view by) {
    if (bytes && *bytes < room_.bytes) room_ = {std::max<Bytes>(0, *bytes), std::string(by)};
  }
  const MemoryRoom& room() const { return room_; }

 private:
  MemoryRoom room_{std::numeric_limits<Bytes>::max(), "nothing"};
};

struct CgroupFiles {
  const char *limit, *usage, *cache;  // the last: a field of memory.stat
};

// Its path in a hierarchy, from /proc/self/cgroup: "0::/a" or "4:memory:/a".
std::optional<std::string> cgroup_path(const fs::path& root, bool version_2) {
  std::ifstream stream(root / "proc/self/cgroup");
  for (std::string line; std::getline(stream, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = fmt::format(",{},", line.substr(first + 1, second - first - 1));
    if (version_2 ? controllers == ",," : controllers.find(",memory,") != std::string::npos)
      return line.substr(second + 1);
  }
  return std::nullopt;
}

// A container may see its own cgroup as the mount's root, whatever the path says: folders that are
// not there are passed over.
void limit_by_cgroups(Least& least, const fs::path& mount, fs::path path,
                      const CgroupFiles& files) {
  for (;; path = path.parent_path()) {
    const fs::path folder = mount / path.relative_path();
    const auto limit = read_number(folder / files.limit), usage = read_number(folder / files.usage);
    if (limit && usage)
      least.limit(*limit - *usage + read_field(folder / "memory.stat", files.cache).value_or(0),
                  fmt::format("the memory limit of cgroup {}", path.string()));
    if (!path.has_relative_path()) return;
  }
}

std::optional<Bytes> node_room(const fs::path& root, int node) {
  const fs::path file = root / fmt::format("sys/devices/system/node/node{}/meminfo", node);
  const auto free = read_field(file, "MemFree:");
  if (!free) return std::nullopt;
  return (*free + read_field(file, "Inactive(file):").value_or(0)) * kKiB;
}

}  // namespace

MemoryRoom memory_room(int node, const fs::path& root) {
  Least least;
  if (const auto kib = read_field(root / "proc/meminfo", "MemAvailable:"))
    least.limit(*kib * kKiB, "the machine's available memory");
  least.limit(node_room(root, node), fmt::format("the free memory of node {}", node));
  const fs::path mount = root / "sys/fs/cgroup";
  if (const auto path = cgroup_path(root, true)) {
    const CgroupFiles files{"memory.max", "memory.current", "inactive_file"};
    limit_by_cgroups(least, mount, *path, files);
  }
  if (const auto path = cgroup_path(root, false)) {
    const CgroupFiles files{"memory.limit_in_bytes", "memory.usage_in_bytes",
                            "total_inactive_file"};
    limit_by_cgroups(least, mount / "memory", *path, files);
  }
  return least.room();
}

}  // namespace modalkv
