#include "modalkv/version.hpp"

#include <gtest/gtest.h>

#include <string>

namespace modalkv {
namespace {

TEST(Version, HeaderLibraryAndProjectAgree) {
  const Version v = kHeaderVersion;
  EXPECT_EQ(std::to_string(v.major_number) + "." + std::to_string(v.minor_number) + "." +
                std::to_string(v.patch_number),
            MODALKV_PROJECT_VERSION);
  EXPECT_EQ(library_version(), kHeaderVersion);
}

}  // namespace
}  // namespace modalkv
