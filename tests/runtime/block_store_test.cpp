#include "runtime/block_store.hpp"

#include <gtest/gtest.h>

namespace modalkv {
namespace {

constexpr LayerKind kPlanned = LayerKind::planned, kHeld = LayerKind::held_high;

struct Store {
  BlockStore blocks{{kHeld, kPlanned, kPlanned}};
  BlockId id = blocks.add(Strand::visual, 64);
  std::vector<Address> given_up;

  Store() {
    for (int layer = 0; layer < 3; ++layer)
      blocks[id].pages[static_cast<std::size_t>(layer)].now = slot(layer);
  }
  static Address slot(int i) { return {{0}, 4096 * i, 4096}; }
  void begin(LayerKind kind, PartState transition, bool low = false) {
    for (int layer = 0; layer < 3; ++layer)
      if (blocks.kind(layer) == kind)
        blocks[id].pages[static_cast<std::size_t>(layer)].next = slot(10 + layer);
    blocks.begin(id, kind, transition, low);
  }
  PartState state(LayerKind kind) { return blocks[id].parts[static_cast<std::size_t>(kind)].state; }
};

TEST(BlockStore, ATransitionEndsInTheNewSlotsOrInTheOld) {
  Store store;
  store.begin(kPlanned, PartState::leaving);
  store.blocks.end(store.id, kPlanned, false, store.given_up);
  EXPECT_EQ(store.state(kPlanned), PartState::resident);
  EXPECT_EQ(store.given_up, (std::vector<Address>{Store::slot(11), Store::slot(12)}));
  store.given_up.clear();
  store.begin(kPlanned, PartState::leaving);
  EXPECT_EQ(store.state(kHeld), PartState::resident) << "the other layers stay";
  store.blocks.end(store.id, kPlanned, true, store.given_up);
  EXPECT_EQ(store.state(kPlanned), PartState::hosted);
  EXPECT_EQ(store.given_up, (std::vector<Address>{Store::slot(1), Store::slot(2)}));
  store.given_up.clear();
  store.blocks.remove(store.id, store.given_up);
  EXPECT_EQ(store.given_up,
            (std::vector<Address>{Store::slot(0), Store::slot(11), Store::slot(12)}));
}

TEST(BlockStore, AnIdNamesNothingOnceItsBlockIsGone) {
  Store store;
  store.blocks.remove(store.id, store.given_up);
  const BlockId again = store.blocks.add(Strand::own, 16);
  EXPECT_EQ(again.index, store.id.index);
  EXPECT_EQ(store.blocks.find(store.id), nullptr);
  EXPECT_NE(store.blocks.find(again), nullptr);
  EXPECT_DEATH(store.blocks[store.id], "a block is named that is gone");
}

TEST(BlockStore, AbortsAtWhatIsNoTransition) {
  Store store;
  EXPECT_DEATH(store.begin(kPlanned, PartState::arriving), "illegal transition");
  EXPECT_DEATH(store.begin(kPlanned, PartState::hosted), "illegal transition");
  EXPECT_DEATH(store.blocks.end(store.id, kPlanned, true, store.given_up), "never began");
  store.begin(kPlanned, PartState::compressing, true);
  EXPECT_DEATH(store.begin(kPlanned, PartState::leaving), "illegal transition");
  store.blocks.end(store.id, kPlanned, true, store.given_up);
  EXPECT_DEATH(store.begin(kPlanned, PartState::leaving, false), "what is compressed stays so");
}

}  // namespace
}  // namespace modalkv
