// Blocks: the pages of one run of tokens in all layers, and what state they are in. Sequences share
// blocks; a block's pages lie in the device's or in the host's pool.
//
//   made -> resident -> compressing -> resident, compressed
//           resident -> leaving -> hosted -> arriving -> resident
//   made -> loading -> hosted
//
// A transition is of all pages of a part at once. It begins when its operations are submitted and
// ends with their outcome: well, and the pages are in their new slots; or not, and they are where
// they were. There is no other transition, and one at a time. A part with pages that are still
// being filled is resident, and may only leave as a whole between steps.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <vector>

#include "modalkv/op.hpp"
#include "modalkv/plan.hpp"
#include "modalkv/token.hpp"
#include "offload/device.hpp"
#include "scheduler/placement.hpp"
#include "scheduler/unit.hpp"

namespace modalkv {

/// A sequence keeps its own tokens (text, and the first one of each image) apart from those of its
/// images, whose pages others may share, and copies of some of these that it promotes to high
/// precision, other ones in each layer.
enum class Strand : std::uint8_t { own, visual, promoted };

inline constexpr int kStrands = 3;
inline constexpr Strand kAllStrands[] = {Strand::own, Strand::visual, Strand::promoted};

/// Who the pages of a block are where their content is known, the same in every process: of which
/// prefix, and which of its pages. Unique content: they are only this block's.
struct BlockName {
  ContentId prefix{};
  std::uint32_t page = 0;

  bool is_unique() const { return prefix.is_unique(); }
};

/// Names a block for as long as it exists: an id that outlives it names nothing.
struct BlockId {
  std::uint32_t index = ~std::uint32_t{0};
  std::uint32_t generation = 0;

  friend constexpr auto operator<=>(BlockId, BlockId) = default;
};

enum class PartState : std::uint8_t {
  resident,
  compressing,
  leaving,
  hosted,
  arriving,
  loading,  // from disk: it has no pages yet
};

inline constexpr std::size_t kPartStates = 6;

constexpr std::string_view name(PartState state) {
  constexpr std::string_view names[] = {"resident", "compressing", "leaving",
                                        "hosted",   "arriving",    "loading"};
  return names[static_cast<std::uint8_t>(state)];
}

/// Whether its pages are read from the host's pool.
constexpr bool on_host(PartState state) {
  return state == PartState::hosted || state == PartState::arriving;
}
/// From the device's.
constexpr bool on_device(PartState state) {
  return !on_host(state) && state != PartState::loading;
}
constexpr bool in_transition(PartState state) {
  return state != PartState::resident && state != PartState::hosted;
}

/// A block's pages in the layers of one kind.
struct Part {
  PartState state = PartState::resident;
  bool low = false;             ///< compressed
  bool next_low = false;        ///< after the transition
  bool incompressible = false;  ///< it has failed: its rows were lost
  int begun_layers = 0;         ///< that have a page
  int closed_layers = 0;        ///< whose page is full and has its trailer, or is about to
  Action action = Action::resident_high;  ///< what is wanted
  bool assigned = false;                  ///< by the placement, and counted there
};

/// Where a page lies; no bytes: nowhere.
struct PageSlots {
  Address now{};
  Address next{};  ///< where a transition takes it
};

struct Block {
  std::uint32_t generation = 0;
  Strand strand = Strand::own;
  bool stays_high = false;  ///< it has a token that must not be compressed
  bool is_tail = false;     ///< copies of another one's first rows: never attended to, but copied
  BlockName name{};
  std::optional<UnitId> unit{};  ///< of kept content that it belongs to
  int disk_jobs = 0;             ///< that read or write its pages, which stay where they are
  int owners = 0;                ///< sequences, disk jobs, and one for kept content
  int awake_owners = 0;          ///< of the sequences, not paused
  Tokens tokens = 0;             ///< that it has when it is full: fewer at the end of an image
  Ticket last_write{};
  std::vector<std::uint32_t> sequences{};  ///< of the owners, by index; empty: idle content
  std::uint64_t idle_since = 0;            ///< on the clock of attention
  std::vector<std::uint64_t> hidden{};     ///< visual: a bit a token of the page
  std::array<Part, kLayerKinds> parts{};
  std::vector<PageSlots> pages{};  ///< by layer
};

class BlockStore {
 public:
  explicit BlockStore(std::vector<LayerKind> layer_kinds);

  BlockId add(Strand strand, Tokens tokens);
  /// nullptr: it is gone. Good until the next `add`.
  Block* find(BlockId id);
  const Block* find(BlockId id) const;
  Block& operator[](BlockId id);

  /// Checks that the transition is legal. `next` slots have been set by the caller.
  void begin(BlockId id, LayerKind kind, PartState transition, bool next_low);
  /// Ends it: the slots that are given up now are appended to `given_up`. What was not loaded has
  /// no pages then.
  void end(BlockId id, LayerKind kind, bool well, std::vector<Address>& given_up);
  /// The block is gone; all its slots are appended to `given_up`.
  void remove(BlockId id, std::vector<Address>& given_up);

  LayerKind kind(int layer) const { return layer_kinds_[static_cast<std::size_t>(layer)]; }
  int layers() const { return static_cast<int>(layer_kinds_.size()); }
  int layers_of(LayerKind kind) const { return layers_of_[static_cast<std::size_t>(kind)]; }
  int blocks() const { return live_; }
  /// Calls `use(id, block)` for each block.
  template <typename Use>
  void for_each(Use&& use) {
    for (std::uint32_t i = 0; i < blocks_.size(); ++i)
      if (blocks_[i].owners > 0) use(BlockId{i, blocks_[i].generation}, blocks_[i]);
  }
  template <typename Use>
  void for_each(Use&& use) const {
    for (std::uint32_t i = 0; i < blocks_.size(); ++i)
      if (blocks_[i].owners > 0) use(BlockId{i, blocks_[i].generation}, blocks_[i]);
  }

 private:
  std::vector<LayerKind> layer_kinds_;
  std::array<int, kLayerKinds> layers_of_{};
  std::vector<Block> blocks_;
  std::vector<std::uint32_t> free_;
  int live_ = 0;
};

}  // namespace modalkv
