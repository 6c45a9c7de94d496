#include <gtest/gtest.h>

#include "tests/tools/profile/profile_text.hpp"

namespace modalkv {
namespace {

using nlohmann::json;

HardwareProfile parsed(const json& document) {
  return parse_hardware(document.dump(), "h.json");
}
std::string error_of(const json& document) {
  return modalkv::error_of([&] { parsed(document); });
}

template <typename T>
void expect_same(const Sourced<T>& read, const json& written) {
  EXPECT_DOUBLE_EQ(static_cast<double>(read.value), written["value"].get<double>());
  EXPECT_EQ(name(read.evidence), written["kind"]);
  EXPECT_EQ(read.source, written["source"]);
}

TEST(HardwareJson, EveryShippedMachineKeepsItsNumbersTheirEvidenceAndSource) {
  for (const std::string& name : list_hardware()) {
    SCOPED_TRACE(name);
    const json document = shipped_json("hardware", name);
    const HardwareProfile machine = parsed(document);
    EXPECT_EQ(machine.name, name);

    const json& gpu = document["gpu"];
    expect_same(machine.gpu.memory_bytes, gpu["memory_bytes"]);
    expect_same(machine.gpu.memory_bytes_per_s, gpu["memory_bytes_per_s"]);
    expect_same(machine.gpu.flops_16bit, gpu["flops_16bit"]);
    expect_same(machine.gpu.attention_launch_ns, gpu["attention_launch_ns"]);
    expect_same(machine.gpu.small_ops_ns_per_layer, gpu["small_ops_ns_per_layer"]);
    expect_same(machine.gpu.small_ops_ns_per_token, gpu["small_ops_ns_per_token"]);
    expect_same(machine.gpu.step_host_ns, gpu["step_host_ns"]);
    expect_same(machine.gpu.handover_ns, gpu["handover_ns"]);
    expect_same(machine.gpu.reserved_bytes, gpu["reserved_bytes"]);
    const json& efficiency = gpu["efficiency"];
    expect_same(machine.gpu.efficiency.gemm_memory, efficiency["gemm_memory"]);
    expect_same(machine.gpu.efficiency.gemm_flops, efficiency["gemm_flops"]);
    expect_same(machine.gpu.efficiency.attention_memory, efficiency["attention_memory"]);
    expect_same(machine.gpu.efficiency.prefill_flops, efficiency["prefill_flops"]);

    const json& link = document["link"];
    expect_same(machine.link.h2d_bytes_per_s, link["h2d_bytes_per_s"]);
    expect_same(machine.link.d2h_bytes_per_s, link["d2h_bytes_per_s"]);
    expect_same(machine.link.descriptor_ns, link["descriptor_ns"]);
    expect_same(machine.link.duplex_share, link["duplex_share"]);
    const json& table = link["piece_table"];
    EXPECT_EQ(modalkv::name(machine.link.piece_table.evidence), table["kind"]);
    ASSERT_EQ(machine.link.piece_table.value.size(), table["value"].size());
    for (std::size_t i = 0; i < table["value"].size(); ++i)
      EXPECT_EQ(machine.link.piece_table.value[i], (LinkPoint{table["value"][i]["descriptor_bytes"],
                                                              table["value"][i]["bytes_per_s"]}));

    const json& host = document["host"];
    expect_same(machine.host.pinnable_share, host["pinnable_share"]);
    expect_same(machine.host.attention_memory, host["attention_memory"]);
    EXPECT_EQ(machine.host.numa_nodes.source, host["numa_nodes"]["source"]);
    const json& nodes = host["numa_nodes"]["value"];
    ASSERT_EQ(machine.host.numa_nodes.value.size(), nodes.size());
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      EXPECT_EQ(machine.host.numa_nodes.value[i].memory_bytes, nodes[i]["memory_bytes"]);
      EXPECT_EQ(machine.host.numa_nodes.value[i].dram_bytes_per_s, nodes[i]["dram_bytes_per_s"]);
      EXPECT_EQ(machine.host.numa_nodes.value[i].cores, nodes[i]["cores"]);
    }

    const json& disk = document["disk"];
    expect_same(machine.disk.capacity_bytes, disk["capacity_bytes"]);
    expect_same(machine.disk.read_bytes_per_s, disk["read_bytes_per_s"]);
    expect_same(machine.disk.write_bytes_per_s, disk["write_bytes_per_s"]);
    expect_same(machine.disk.latency_ns, disk["latency_ns"]);
  }
}

TEST(HardwareJson, TheFourKindsOfEvidence) {
  json document = shipped_json("hardware", "h100-sxm");
  json& kind = document["link"]["h2d_bytes_per_s"]["kind"];
  for (const auto& [text, evidence] : {std::pair{"datasheet", Evidence::datasheet},
                                       {"measured", Evidence::measured},
                                       {"fitted", Evidence::fitted},
                                       {"guess", Evidence::guess}}) {
    kind = text;
    EXPECT_EQ(parsed(document).link.h2d_bytes_per_s.evidence, evidence);
  }
  kind = "rumour";
  EXPECT_EQ(error_of(document),
            "h.json: key 'link.h2d_bytes_per_s.kind': found \"rumour\", expected datasheet, "
            "measured, fitted or guess");
}

TEST(HardwareJson, EveryMemberIsNeededTypedAndBounded) {
  const json document = shipped_json("hardware", "h100-sxm");
  const auto all = members(document);
  EXPECT_GT(all.size(), 80u);
  for (const auto& member : all) {
    const std::string key = key_of(member);
    const auto expect_error = [&](const json& changed) {
      const std::string error = error_of(changed);
      EXPECT_TRUE(error.starts_with("h.json: ")) << key << "\n" << error;
      EXPECT_NE(error.find(key), std::string::npos) << key << "\n" << error;
      EXPECT_EQ(error.find('\n'), std::string::npos) << error;
    };
    const json& value = document[member];
    json changed = document;
    changed[member.parent_pointer()].erase(member.back());
    expect_error(changed);
    changed = document;
    changed[member] = value.is_string() ? json(5) : json("five");
    expect_error(changed);
    if (!value.is_number()) continue;
    for (const json& bad : {json(-1), json(1e30), json(nullptr), json(true)}) {
      changed[member] = bad;
      expect_error(changed);
    }
  }
}

TEST(HardwareJson, UnknownKeysAreErrorsInEveryObject) {
  const json document = shipped_json("hardware", "h100-sxm");
  for (const auto& member : members(document)) {
    if (!document[member].is_object()) continue;
    json changed = document;
    changed[member]["extra"] = 1;
    EXPECT_EQ(error_of(changed), "h.json: unknown key '" + key_of(member) + ".extra'");
  }
  json changed = document;
  changed["extra"] = 1;
  EXPECT_EQ(error_of(changed), "h.json: unknown key 'extra'");
  changed.erase("extra");
  changed["note"] = "free text";
  EXPECT_EQ(error_of(changed), "no error");
}

TEST(HardwareJson, ReservedMemoryIsPartOfTheMemory) {
  json document = shipped_json("hardware", "l4");
  document["gpu"]["memory_bytes"]["value"] = 1000;
  document["gpu"]["reserved_bytes"]["value"] = 1000;
  EXPECT_EQ(error_of(document), "no error");
  document["gpu"]["reserved_bytes"]["value"] = 1001;
  EXPECT_NE(error_of(document).find("gpu.reserved_bytes"), std::string::npos) << error_of(document);
}

TEST(HardwareJson, TablesAscendAndAMachineHasANode) {
  json document = shipped_json("hardware", "h100-sxm");
  json& table = document["link"]["piece_table"]["value"];
  ASSERT_GE(table.size(), 2u);
  std::swap(table[0], table[1]);
  EXPECT_NE(error_of(document).find("link.piece_table.value[1].descriptor_bytes"),
            std::string::npos)
      << error_of(document);
  table = json::array();
  EXPECT_EQ(error_of(document), "no error");
  document["host"]["numa_nodes"]["value"] = json::array();
  EXPECT_EQ(error_of(document),
            "h.json: key 'host.numa_nodes.value': found array, expected at least one node");
}

}  // namespace
}  // namespace modalkv
