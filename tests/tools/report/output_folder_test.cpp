#include "tools/report/output_folder.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <set>
#include <string>

#include "modalkv/error.hpp"

namespace modalkv {
namespace {

namespace fs = std::filesystem;

class OutputFolderTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "modalkv-output-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
  }
  void TearDown() override {
    fs::permissions(root_, fs::perms::owner_all);
    fs::remove_all(root_);
  }

  std::set<std::string> names(const fs::path& folder) const {
    std::set<std::string> result;
    for (const auto& entry : fs::directory_iterator(folder))
      result.insert(entry.path().filename().string());
    return result;
  }
  static std::string read(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  template <typename Function>
  static void expect_one_line_error(Function function, const std::string& part) {
    try {
      function();
      FAIL() << "no Error";
    } catch (const Error& error) {
      const std::string what = error.what();
      EXPECT_NE(what.find(part), std::string::npos) << what;
      EXPECT_EQ(what.find('\n'), std::string::npos) << what;
    }
  }

  fs::path root_;
};

/// Files of this process end at so many bytes, as on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{.rlim_cur = bytes, .rlim_max = before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  rlimit before_{};
  void (*handler_)(int);
};

TEST_F(OutputFolderTest, FilesAppearTogetherAtCommit) {
  const fs::path out = root_ / "deep" / "out";
  OutputFolder folder(out);
  folder.write("a.json", "{}\n");
  folder.write("b.csv", std::string(3'000'000, 'x'));
  EXPECT_FALSE(fs::exists(out));
  folder.commit();
  EXPECT_EQ(names(out), (std::set<std::string>{"a.json", "b.csv"}));
  EXPECT_EQ(read(out / "a.json"), "{}\n");
  EXPECT_EQ(fs::file_size(out / "b.csv"), 3'000'000u);
}

TEST_F(OutputFolderTest, NothingIsLeftWithoutCommit) {
  { OutputFolder(root_ / "out").write("a.json", "{}"); }
  EXPECT_TRUE(names(root_).empty());
}

TEST_F(OutputFolderTest, CommitReplacesItsFilesAndKeepsOthers) {
  const fs::path out = root_ / "out";
  fs::create_directory(out);
  std::ofstream(out / "a.json") << "old";
  std::ofstream(out / "mine.txt") << "mine";
  {
    OutputFolder folder(out);
    folder.write("a.json", "new");
    EXPECT_EQ(read(out / "a.json"), "old");
    folder.commit();
  }
  EXPECT_EQ(read(out / "a.json"), "new");
  EXPECT_EQ(read(out / "mine.txt"), "mine");
  EXPECT_EQ(names(root_), (std::set<std::string>{"out"}));
}

TEST_F(OutputFolderTest, AFolderInAFilesPlaceReplacesNothing) {
  const fs::path out = root_ / "out";
  fs::create_directories(out / "z.json");
  std::ofstream(out / "a.json") << "old";
  OutputFolder folder(out);
  folder.write("a.json", "new");
  folder.write("z.json", "new");
  expect_one_line_error([&] { folder.commit(); }, "z.json: cannot be written");
  EXPECT_EQ(read(out / "a.json"), "old");
}

TEST_F(OutputFolderTest, ASlashAtTheEndMeansTheSameFolder) {
  {
    OutputFolder folder(root_.string() + "/out/");
    folder.write("a", "1");
    folder.commit();
  }
  EXPECT_EQ(names(root_ / "out"), (std::set<std::string>{"a"}));
  EXPECT_EQ(names(root_), (std::set<std::string>{"out"}));
}

TEST_F(OutputFolderTest, AFileInItsPlaceIsAnErrorBeforeAnyWork) {
  std::ofstream(root_ / "out") << "a file";
  expect_one_line_error([&] { OutputFolder folder(root_ / "out"); }, "out: cannot be written");
  expect_one_line_error([&] { OutputFolder folder(root_ / "out" / "below"); }, "cannot be written");
  EXPECT_EQ(names(root_), (std::set<std::string>{"out"}));
  EXPECT_EQ(read(root_ / "out"), "a file");
}

TEST_F(OutputFolderTest, AFolderThatCannotBeMadeIsAnErrorBeforeAnyWork) {
  expect_one_line_error([] { OutputFolder folder("/proc/modalkv-out"); }, "cannot be written");
}

TEST_F(OutputFolderTest, AnUnwritableFolderIsAnErrorBeforeAnyWork) {
  fs::create_directory(root_ / "out");
  fs::permissions(root_, fs::perms(0555));
  const auto as_an_ordinary_user = [&] {  // root may write anywhere
    if (::geteuid() == 0 && ::setuid(65534) != 0) std::_Exit(2);
    try {
      OutputFolder folder(root_ / "out");
    } catch (const Error& error) {
      std::fputs(error.what(), stderr);
      std::_Exit(1);
    }
    std::_Exit(0);
  };
  EXPECT_EXIT(as_an_ordinary_user(), testing::ExitedWithCode(1),
              "out: cannot be written: Permission denied$");
}

TEST_F(OutputFolderTest, AFullDiskLeavesNothing) {
  const fs::path out = root_ / "out";
  fs::create_directory(out);
  std::ofstream(out / "summary.json") << "of the run before";
  {
    OutputFolder folder(out);
    folder.write("requests.csv", "short");
    const FileSizeLimit full(100'000);
    expect_one_line_error([&] { folder.write("timeline.json", std::string(200'000, 'x')); },
                          "timeline.json: cannot be written: File too large");
  }
  EXPECT_EQ(names(root_), (std::set<std::string>{"out"}));
  EXPECT_EQ(names(out), (std::set<std::string>{"summary.json"}));
  EXPECT_EQ(read(out / "summary.json"), "of the run before");
}

TEST_F(OutputFolderTest, OneFileAppearsWholeOrNotAtAll) {
  const fs::path file = root_ / "trace.jsonl";
  write_file(file, "one\n");
  EXPECT_EQ(read(file), "one\n");
  {
    const FileSizeLimit full(100'000);
    expect_one_line_error([&] { write_file(file, std::string(200'000, 'x')); },
                          "cannot be written: File too large");
  }
  EXPECT_EQ(read(file), "one\n");
  expect_one_line_error([&] { write_file(root_ / "none" / "x", "text"); }, "No such file");
  fs::create_directory(root_ / "folder");
  expect_one_line_error([&] { write_file(root_ / "folder", "text"); }, "Is a directory");
  EXPECT_EQ(names(root_), (std::set<std::string>{"folder", "trace.jsonl"}));
}

// /dev/full takes no byte. Reached through a link, so that a failure of this test harms nothing.
TEST_F(OutputFolderTest, ADeviceIsWrittenNotReplaced) {
  fs::create_symlink("/dev/full", root_ / "full");
  fs::create_symlink("/dev/null", root_ / "null");
  expect_one_line_error([&] { write_file(root_ / "full", "text"); }, "No space left on device");
  write_file(root_ / "null", "text");
  EXPECT_TRUE(fs::is_symlink(root_ / "null"));
  EXPECT_TRUE(fs::is_symlink(root_ / "full"));
  EXPECT_EQ(names(root_), (std::set<std::string>{"full", "null"}));
}

TEST_F(OutputFolderTest, ALinkKeepsPointingAtTheFileThatIsReplaced) {
  std::ofstream(root_ / "file") << "old";
  fs::create_symlink(root_ / "file", root_ / "link");
  write_file(root_ / "link", "new");
  EXPECT_TRUE(fs::is_symlink(root_ / "link"));
  EXPECT_EQ(read(root_ / "file"), "new");
}

}  // namespace
}  // namespace modalkv
