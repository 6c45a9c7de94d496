#include "tools/commands/inspect_topology.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace modalkv {
namespace {

const TopologySource kTwoSockets{.xml_file = MODALKV_SOURCE_DIR
                                 "/tests/offload/topologies/two_sockets.xml"};

TEST(InspectTopology, SaysWhatItWillDo) {
  const std::string text = describe_topology(kTwoSockets, false);
  EXPECT_NE(text.find("nothing: GPU memory"), std::string::npos) << text;
  EXPECT_NE(text.find("nothing: memory only"), std::string::npos) << text;
  EXPECT_NE(text.find("For 0000:65:00.0 modalkv will fill a pool a node, in this order, and attend "
                      "to it there:\n"
                      "  node 1: pinned pool of up to 32.0 GiB; 3 attention threads on 4-6\n"
                      "  node 0: pinned pool of up to 64.0 GiB; 4 attention threads on 0-3\n"),
            std::string::npos)
      << text;
}

TEST(InspectTopology, JsonHasTheSame) {
  const auto json = nlohmann::json::parse(describe_topology(kTwoSockets, true));
  EXPECT_EQ(json["nodes"].size(), 4u);
  EXPECT_EQ(json["pools"][0]["gpu"], "0000:65:00.0");
  EXPECT_EQ(json["pools"][0]["nodes"][0], (nlohmann::json{{"node", 1}, {"attention_threads", 3}}));
}

TEST(InspectTopology, ThisMachineHasAHome) {
  const auto json = nlohmann::json::parse(describe_topology({}, true));
  EXPECT_GE(json["pools"][0]["nodes"].size(), 1u);
}

}  // namespace
}  // namespace modalkv
