// The pages of a sequence as attention reads them, list by list, kept from step to step: a step
// costs what is new, not what is there.
//
// A list is of one strand, format and place, the same blocks in all layers of a kind; what differs
// by layer is where the pages lie. What operations in flight may read is only added to: where a
// page moves, the lists are made anew.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "modalkv/op.hpp"
#include "runtime/block_store.hpp"
#include "runtime/fenced_memory.hpp"
#include "runtime/token_layout.hpp"

namespace modalkv {

enum class PagePlace : std::uint8_t {
  resident,  ///< on the device
  staged,    ///< on a host node, copied to the device for each step
  cpu,       ///< on a host node, attended to by its cores
};

struct ListedBlock {
  BlockId id{};
  Tokens index = 0;  ///< in its strand
};

/// Neighbours on the host: one copy can bring them.
struct HostRun {
  Tokens first_page = 0, pages = 0;  ///< in the list
  Address from{};

  Tokens end() const { return first_page + pages; }
};

/// Where a list's pages lie in a layer.
struct LayerPages {
  Tokens filled = 0;            ///< pages of which that is known here
  Address table{};              ///< resident, cpu: for Attend
  Address hidden{};             ///< the same as KvList's where it differs by layer
  std::vector<HostRun> runs{};  ///< staged
};

struct KvList {
  Strand strand = Strand::own;
  bool low = false;
  PagePlace place = PagePlace::resident;
  std::uint8_t node = 0;              ///< cpu: whose cores
  std::vector<ListedBlock> blocks{};  ///< ascending
  Address hidden{};                   ///< a bit a token; no bytes: none is hidden
  std::vector<LayerPages> layers{};   ///< of the model; those of the kind are used

  const Address& hidden_in(int layer) const {
    const Address& here = layers[static_cast<std::size_t>(layer)].hidden;
    return here.bytes > 0 ? here : hidden;
  }
  /// Of the first tokens of the sequence: only the last ones may hold none of them.
  Tokens pages(const LayoutExtent& extent) const {
    auto pages = blocks.size();
    if (strand == Strand::promoted) return static_cast<Tokens>(pages);
    while (pages > 0 && blocks[pages - 1].index >= extent.blocks(strand)) --pages;
    return static_cast<Tokens>(pages);
  }
};

/// Of one sequence and kind of layers.
struct SequenceLists {
  std::uint64_t version = 0;  ///< another one whenever they are made anew
  bool stale = true;          ///< a page has moved
  Tokens own_blocks = 0, visual_blocks = 0, promoted_blocks = 0;  ///< that are listed
  std::vector<KvList> lists{};
};

/// Device-visible memory for tables, in sizes that double.
class TablePool {
 public:
  explicit TablePool(const Address& where);

  /// At least `bytes`. Nothing: it is full, or never that large.
  std::optional<Address> take(Bytes bytes);
  /// No bytes: nothing to give back.
  void give_back(const Address& table, Fence fence);
  void recycle(Fence passed) { pool_.recycle(passed); }
  /// Nothing is given back that will be free soon.
  bool settled() const { return pool_.retired_bytes() == 0; }

 private:
  PagePool pool_;
};

}  // namespace modalkv
