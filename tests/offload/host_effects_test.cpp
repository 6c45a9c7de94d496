// An Attend divided over threads: against double precision, and against itself.
#include "offload/host_effects.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include "tests/kernels/made_attention.hpp"
#include "tests/offload/devices.hpp"

namespace modalkv {
namespace {

// One space that holds a made list, its pages out of order, and all that an Attend needs.
class AttendSpace {
 public:
  AttendSpace(const MadeList& list, const MadeQueries& queries) {
    op_.shape = list.shape;
    op_.tokens = list.tokens;
    op_.query_heads = queries.heads;
    op_.query_tokens = static_cast<std::int32_t>(queries.tokens);
    op_.input = queries.number;
    op_.logit_scale = queries.queries().scale;
    op_.window = queries.window;
    const Bytes page = page_bytes(list.shape);
    const auto pages = static_cast<Bytes>(list.pages.size());
    op_.pages = place(nullptr, pages * page);
    std::vector<Bytes> offsets;
    for (Bytes i = 0; i < pages; ++i) {
      offsets.push_back((pages - 1 - i) * page);
      std::memcpy(&bytes_[static_cast<std::size_t>(op_.pages.offset + offsets.back())],
                  list.pages[static_cast<std::size_t>(i)].data(), static_cast<std::size_t>(page));
    }
    op_.page_table = place(offsets);
    std::vector<std::uint16_t> rows;
    for (Tokens token = 0; token < queries.tokens; ++token) {
      const auto row = queries.elements.begin() + token * queries.token_stride();
      rows.insert(rows.end(), row, row + queries.heads * queries.head_dim);
    }
    op_.queries = place(rows);
    op_.query_positions = place(queries.positions);
    op_.token_positions = place(list.positions);
    op_.hidden = place(list.hidden);
    op_.partials = place(nullptr, partial_bytes(queries.rows(), queries.head_dim));
    if (const KeyBias* bias = list.known_bias.bias) {
      const auto dim = static_cast<std::size_t>(bias->head_dim);
      const auto heads = static_cast<std::size_t>(list.shape.kv_heads);
      op_.key_bias = {.elements = place(std::span(bias->elements, heads * dim)),
                      .frequencies = place(std::span(bias->frequencies, dim / 2)),
                      .positions = place(list.known_bias.positions),
                      .sections = bias->sections};
    }
  }

  Attend& op() { return op_; }
  std::vector<float> perform(HostEffects& effects) {
    std::byte* const spaces[] = {bytes_.data()};
    EXPECT_EQ(effects.perform(op_, spaces), Status::ok);
    return partials();
  }
  std::vector<float> partials() const {
    std::vector<float> all(static_cast<std::size_t>(op_.partials.bytes) / sizeof(float));
    std::memcpy(all.data(), &bytes_[static_cast<std::size_t>(op_.partials.offset)],
                all.size() * sizeof(float));
    return all;
  }
  std::vector<std::byte>& bytes() { return bytes_; }

 private:
  Address place(const void* from, Bytes size) {
    const auto at = static_cast<Bytes>(bytes_.size());
    bytes_.resize(static_cast<std::size_t>(round_up(at + size, 64)));
    if (from != nullptr && size > 0)
      std::memcpy(&bytes_[static_cast<std::size_t>(at)], from, static_cast<std::size_t>(size));
    return {{}, at, size};
  }
  template <typename Values>
  Address place(const Values& values) {
    return place(values.data(), static_cast<Bytes>(values.size() * sizeof(values[0])));
  }

  std::vector<std::byte> bytes_;
  Attend op_{};
};

// Decoding, a chunk with positions, a window and hidden tokens, and keys without their bias.
template <typename Test>
void for_each_case(Test test) {
  const PageShape shape{48, 2, 64, {int4_token_head(), int8_token_head(), 32}};
  const MadeList plain = make_list(shape, 3000, 1);
  test(plain, make_queries(1, 8, 64, 1, 2));

  MadeList masked = make_list({16, 2, 64, both(fp16())}, 1500, 3);
  std::mt19937_64 random(4);
  for (std::int32_t t = 0; t < 1500; ++t) masked.positions.push_back(2 * t);
  for (Tokens t = 0; t < 1500; t += 64) masked.hidden.push_back(random());
  MadeQueries chunk = make_queries(5, 4, 64, 1, 5);
  chunk.positions = {0, 900, 2000, 2999, 4000};
  chunk.window = 1200;
  test(masked, chunk);

  std::vector<std::int32_t> positions;
  for (std::int32_t t = 0; t < 3 * 1000; ++t) positions.push_back(50'000 + t / 3);
  const MadeBias bias(shape, RopeSections{{8, 12, 12}}, positions, 6);
  test(make_biased_list(shape, 1000, bias, 7), make_queries(1, 8, 64, 0.1f, 8));
}

TEST(HostEffects, AttendsWithinTheStatedErrorOnAnyNumberOfThreads) {
  HostEffects one(1), two(2), five(5);
  for_each_case([&](const MadeList& list, const MadeQueries& queries) {
    AttendSpace space(list, queries);
    const PageList lists[] = {list.list()};
    const ExpectedAttention expected(queries.queries(), lists, queries.head_dim);
    for (HostEffects* effects : {&one, &two, &five}) expected.check(space.perform(*effects));
  });
}

TEST(HostEffects, TheSameThreadsGiveTheSameBytesAndOneThreadThoseOfPerform) {
  HostEffects one(1), four(4), also_four(4);
  for_each_case([&](const MadeList& list, const MadeQueries& queries) {
    AttendSpace space(list, queries);
    const std::vector<float> first = space.perform(four);
    for (int round = 0; round < 5; ++round) EXPECT_EQ(space.perform(also_four), first);
    const std::vector<float> alone = space.perform(one);
    std::byte* const spaces[] = {space.bytes().data()};
    EXPECT_EQ(perform(space.op(), spaces), Status::ok);
    EXPECT_EQ(space.partials(), alone);
  });
}

TEST(HostEffects, APageOutOfBoundsIsRejected) {
  const MadeList list = make_list({16, 1, 64, both(fp16())}, 2000, 1);
  AttendSpace space(list, make_queries(1, 1, 64, 1, 2));
  const Bytes outside = space.op().pages.offset + space.op().pages.bytes;
  const auto last = static_cast<std::size_t>(space.op().page_table.offset +
                                             space.op().page_table.bytes - kPageTableEntryBytes);
  std::memcpy(&space.bytes()[last], &outside, sizeof(outside));
  std::byte* const spaces[] = {space.bytes().data()};
  HostEffects effects(3);
  EXPECT_EQ(effects.perform(space.op(), spaces), Status::rejected);
}

// Behind the seam: a host queue of several threads beside another that copies.
TEST(HostEffects, AQueueOfSeveralThreadsAttends) {
  const MadeList list = make_list({32, 2, 64, both(int4_token_head())}, 4000, 1);
  const MadeQueries queries = make_queries(1, 4, 64, 1, 2);
  AttendSpace space(list, queries);
  HostDevice device(standard_queues(2, 3));
  const auto registered = device.register_space(
      {SpaceInfo::Kind::host, static_cast<Bytes>(space.bytes().size()), space.bytes().data()});
  ASSERT_EQ(registered.status, Status::ok);
  Memory other(device, 128);
  for (int round = 0; round < 20; ++round) {
    const Op attend[] = {space.op()};
    const Op copy[] = {Copy{other.at(0, 64), other.at(64, 64)}};
    const int node = round % 2;
    EXPECT_EQ(device.submit(find_queue(device, QueueKind::host, node).value(), attend, {}).status,
              Status::ok);
    EXPECT_EQ(device.submit(find_queue(device, QueueKind::host, 1 - node).value(), copy, {}).status,
              Status::ok);
    for (const Completion& completion : drain(device)) EXPECT_EQ(completion.status, Status::ok);
  }
  const PageList lists[] = {list.list()};
  expect_close(queries.queries(), lists, 64, space.partials());
}

}  // namespace
}  // namespace modalkv
