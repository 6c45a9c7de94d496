// The runtime on a machine of two NUMA nodes with processors; offload/two_nodes_vm.sh emulates one.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "kernels/number.hpp"
#include "modalkv/runtime.hpp"
#include "offload/topology.hpp"
#include "tests/scheduler/sample_machine.hpp"

namespace modalkv {
namespace {

constexpr int kLayers = 2, kHeads = 2, kHeadDim = 64;
constexpr Tokens kTokens = 1024;

// The bytes in use of each host pool, as the runtime describes them.
std::vector<Bytes> used_host_bytes(const Runtime& runtime) {
  const std::string text = runtime.describe();
  std::vector<Bytes> used;
  for (std::size_t at = text.find("host pages: "); at != std::string::npos;
       at = text.find("host pages: ", at + 1))
    used.push_back(std::atoll(text.c_str() + at + 12));
  return used;
}

TEST(TwoNodesNightly, TheRuntimeAttendsOnEachNodeToWhatLiesThere) {
  const Topology topology = read_topology();
  if (homes_by_distance(topology, "").size() < 2) {
    if (std::getenv("MODALKV_EXPECT_TWO_NODES") != nullptr) FAIL() << "two nodes were promised";
    GTEST_SKIP() << "not run: this machine has one NUMA node";
  }
  RuntimeConfig config;
  config.layers = kLayers;
  config.query_heads = config.kv_heads = kHeads;
  config.head_dim = kHeadDim;
  config.policy.selection = Selection::text_centric;
  config.policy.keep = 0.1;
  config.policy.visual_low = both(int4_token_head());
  config.policy.places = {true, false, true};
  config.device_bytes = 3 * kMiB + 200 * kKiB;
  config.host_bytes = 128 * kMiB;
  config.tables_bytes = kMiB;
  config.staging_slot_bytes = kMiB;
  config.partials_bytes = kMiB;
  Runtime runtime(config);
  // Rows that INT4 holds exactly.
  std::vector<std::uint16_t> rows(kTokens * kHeads * kHeadDim), outputs(kHeads * kHeadDim);
  for (std::size_t i = 0; i < rows.size(); ++i)
    rows[i] = to_fp16(i % kHeadDim < 2 ? (i % kHeadDim == 0 ? -2.0f : 1.75f)
                                       : static_cast<float>(i * i / 7 % 16) / 4 - 2);
  runtime.register_memory(std::as_writable_bytes(std::span(rows)));
  runtime.register_memory(std::as_writable_bytes(std::span(outputs)));
  const Segment prompt[] = {{TokenClass::image, kTokens}};
  const SequenceId sequence = runtime.begin(prompt).value().sequence;
  constexpr Tokens chunk = 64;
  for (Tokens token = 0; token < kTokens; token += chunk)
    for (int layer = 0; layer < kLayers; ++layer) {
      const Address all =
          runtime.address(rows.data() + token * kHeads * kHeadDim, chunk * kHeads * kHeadDim * 2);
      const AppendRequest append{sequence, chunk, all, all};
      Status status = Status::busy;
      for (int i = 0; status == Status::busy && i < 10'000; ++i) {
        status = runtime.append({&append, 1}, layer);
        if (status == Status::busy) runtime.poll(kMillisecond);
      }
      ASSERT_EQ(status, Status::ok) << runtime.describe();
    }
  const AttendRequest attend{sequence, 1, runtime.address(rows.data(), kHeads * kHeadDim * 2),
                             runtime.address(outputs.data(), kHeads * kHeadDim * 2)};
  const auto attended = [&] {
    const Attended step = runtime.attend({&attend, 1}, 1);
    EXPECT_EQ(step.status, Status::ok);
    EXPECT_EQ(runtime.wait(step.step, 60 * kSecond), Status::ok);
    std::vector<float> all;
    for (const std::uint16_t output : outputs) all.push_back(from_fp16(output));
    return all;
  };
  // With no place for it on the device, half of the image lies on each node.
  for (int i = 0; i < 10'000 && runtime.describe().find("in flight: 0") == std::string::npos; ++i)
    runtime.poll(kMillisecond);
  const std::vector<Bytes> used = used_host_bytes(runtime);
  ASSERT_EQ(used.size(), 2u) << runtime.describe();
  EXPECT_GT(used[0], 0) << runtime.describe();
  EXPECT_GT(used[1], 0) << runtime.describe();
  EXPECT_EQ(runtime.describe().find("misplaced"), std::string::npos) << runtime.describe();
  // The naive attention of the same rows, in double precision.
  const std::vector<float> found = attended();
  for (int head = 0; head < kHeads; ++head) {
    std::vector<double> output(kHeadDim);
    double sum = 0;
    for (Tokens token = 0; token < kTokens; ++token) {
      const std::uint16_t* row = rows.data() + (token * kHeads + head) * kHeadDim;
      const std::uint16_t* query = rows.data() + head * kHeadDim;
      double logit = 0;
      for (int dim = 0; dim < kHeadDim; ++dim)
        logit += double{from_fp16(query[dim])} * from_fp16(row[dim]) / 8;
      const double weight = std::exp(logit - 30);
      sum += weight;
      for (int dim = 0; dim < kHeadDim; ++dim)
        output[static_cast<std::size_t>(dim)] += weight * from_fp16(row[dim]);
    }
    for (int dim = 0; dim < kHeadDim; ++dim)
      EXPECT_NEAR(found[static_cast<std::size_t>(head * kHeadDim + dim)],
                  output[static_cast<std::size_t>(dim)] / sum, 1e-2)
          << head << ' ' << dim;
  }
}

}  // namespace
}  // namespace modalkv
