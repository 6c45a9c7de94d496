#include "tools/profile/profile.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "tests/tools/profile/profile_text.hpp"

namespace modalkv {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> stems_in(const fs::path& folder) {
  std::vector<std::string> stems;
  for (const auto& entry : fs::directory_iterator(folder)) stems.push_back(entry.path().stem());
  std::sort(stems.begin(), stems.end());
  return stems;
}

class OwnFolder : public testing::Test {
 protected:
  OwnFolder()
      : folder_(fs::path(testing::TempDir()) / fmt::format("modalkv_profile_{}", getpid())) {
    fs::create_directories(folder_ / "models");
    fs::create_directories(folder_ / "hardware");
  }
  ~OwnFolder() override {
    unsetenv("MODALKV_PROFILE_DIR");
    fs::remove_all(folder_);
  }
  void write(const fs::path& path, std::string_view text) const {
    std::ofstream(folder_ / path, std::ios::binary) << text;
  }

  const fs::path folder_;
};

TEST(Profiles, EveryShippedFileIsListedAndLoads) {
  EXPECT_EQ(list_models(), stems_in(shipped("models")));
  EXPECT_EQ(list_hardware(), stems_in(shipped("hardware")));
  EXPECT_GE(list_models().size(), 15u);
  EXPECT_GE(list_hardware().size(), 15u);
  for (const std::string& name : list_models()) EXPECT_EQ(load_model(name).name, name);
  for (const std::string& name : list_hardware()) EXPECT_EQ(load_hardware(name).name, name);
}

TEST(Profiles, ShippedModelsHaveThePublishedNumbersOfParameters) {
  const auto billions = [](const char* model) {
    return static_cast<double>(weight_bytes(load_model(model))) / 2e9;
  };
  EXPECT_NEAR(billions("llava-1.5-7b"), 7.06, 0.1);
  EXPECT_NEAR(billions("llama-3.1-8b"), 8.03, 0.05);
  EXPECT_NEAR(billions("qwen2.5-vl-7b"), 8.29, 0.2);
  EXPECT_NEAR(billions("qwen2.5-vl-72b"), 73.4, 1.0);
  EXPECT_NEAR(billions("qwen3-vl-30b-a3b"), 31.1, 0.6);
}

TEST(Profiles, UnknownNamesSuggestTheNearest) {
  const std::string error = error_of([] { load_model("llava-1.5-8b"); });
  EXPECT_TRUE(error.starts_with("no profile 'llava-1.5-8b' in models; nearest: llava-1.5-7b, "))
      << error;
  EXPECT_TRUE(error_of([] { load_hardware("h100"); }).starts_with("no profile 'h100' in hardware"));
  EXPECT_NE(error_of([] { load_hardware("h100-sxn"); }).find("nearest: h100-sxm, "),
            std::string::npos);
}

TEST_F(OwnFolder, AFileOfOnesOwnIsFoundByItsPath) {
  nlohmann::json model = shipped_json("models", "llava-1.5-7b");
  model["name"] = "mine";
  model["layers"] = 3;
  write("mine.json", "\xef\xbb\xbf" + model.dump(2));
  EXPECT_EQ(load_model((folder_ / "mine.json").string()).layers, 3);
  nlohmann::json hardware = shipped_json("hardware", "a10");
  hardware["link"]["duplex_share"]["value"] = 0.25;
  write("box", hardware.dump());
  EXPECT_EQ(load_hardware((folder_ / "box").string()).link.duplex_share.value, 0.25);
}

TEST_F(OwnFolder, ErrorsNameTheFile) {
  const std::string path = (folder_ / "mine.json").string();
  EXPECT_TRUE(error_of([&] { load_model(path); }).starts_with(path + ": cannot be read: "));
  write("mine.json", "{\n\"name\": \"x\",\n}");
  EXPECT_TRUE(error_of([&] { load_model(path); }).starts_with(path + ":3: not valid JSON"));
  write("mine.json", R"({"name": "x"})");
  EXPECT_EQ(error_of([&] { load_hardware(path); }), path + ": key 'gpu' is missing");
  EXPECT_EQ(error_of([&] { load_model(folder_.string() + "/"); }),
            folder_.string() + "/: cannot be read: it is a folder");
}

TEST_F(OwnFolder, TheEnvironmentNamesAnotherFolder) {
  write("models/only.json", shipped_json("models", "llava-1.5-7b").dump());
  write("models/notes.txt", "not a profile");
  setenv("MODALKV_PROFILE_DIR", folder_.c_str(), 1);
  EXPECT_EQ(profile_folder(), folder_);
  EXPECT_EQ(list_models(), std::vector<std::string>{"only"});
  EXPECT_TRUE(list_hardware().empty());
  EXPECT_EQ(load_model("only").name, "llava-1.5-7b");
  setenv("MODALKV_PROFILE_DIR", (folder_ / "models").c_str(), 1);
  EXPECT_NE(error_of([] { list_models(); }).find("there is no folder 'models' in it"),
            std::string::npos);
}

}  // namespace
}  // namespace modalkv
