// Stands in for libFuzzer: runs a fuzz target once on every file of the folders given.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

int replay(const std::filesystem::path& folder) {
  int files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    std::ifstream stream(entry.path(), std::ios::binary);
    const std::vector<char> text{std::istreambuf_iterator<char>(stream), {}};
    std::fprintf(stderr, "%s\n", entry.path().c_str());  // the last one named is the one that fell
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
    ++files;
  }
  return files;
}

}  // namespace

int main(int argc, char** argv) {
  int files = 0;
  try {
    for (int i = 1; i < argc; ++i) files += replay(argv[i]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "replay_corpus: %s\n", error.what());
    return 1;
  }
  std::printf("replayed %d inputs\n", files);
  return files > 0 ? 0 : 1;
}
