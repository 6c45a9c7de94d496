// The KV of running sequences: takes K and V as an engine produces them, holds them in pages where
// the plan wants them, brings streamed pages to the device ahead of the layer that needs them, and
// attends over whatever is where.
//
// Everything is submitted to a device; nothing here waits but `poll`. What a call needs is checked
// and taken first: where there is no room now it answers `busy` and has changed nothing that
// counts, and the caller polls and tries again.
#pragma once

#include <deque>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "modalkv/runtime.hpp"
#include "runtime/attention_lists.hpp"
#include "runtime/block_store.hpp"
#include "runtime/fenced_memory.hpp"
#include "runtime/group_ledger.hpp"
#include "runtime/staging_ring.hpp"
#include "runtime/token_layout.hpp"

namespace modalkv {

/// Memory of the caller, which outlives the device. `tables` is seen by both sides.
struct KvCacheMemory {
  std::span<std::byte> device, host, tables;
};

class KvCache {
 public:
  /// Throws Error where the memory cannot hold what the configuration needs at least.
  KvCache(Device& device, const RuntimeConfig& config, const KvCacheMemory& memory);

  /// What the plan wants of new and of present KV, as shares of each group of tokens. Holds until
  /// the next call; at first everything stays on the device in 16 bits while there is room.
  void set_placement(const Placement& placement);

  // As Runtime promises them (modalkv/runtime.hpp).
  std::optional<SequenceId> begin(std::span<const Segment> prompt);
  Status append(const AppendRequest& request, std::span<const Ticket> after = {});
  Attended attend(std::span<const AttendRequest> batch, int layer,
                  std::span<const Ticket> after = {});
  Status pause(SequenceId sequence);
  Status resume(SequenceId sequence);
  Forked fork(SequenceId sequence);
  Truncated truncate(SequenceId sequence, Tokens tokens);
  Status release(SequenceId sequence);
  std::optional<RuntimeEvent> poll(Nanos timeout_ns);
  Status wait(std::uint64_t step, Nanos timeout_ns);

  /// More of the host's memory may be used: `bytes` from its beginning.
  void grow_host(Bytes bytes);
  /// Tokens of the running sequences: text, visual.
  std::pair<Tokens, Tokens> held_tokens() const;
  int awake_sequences() const;
  Bytes device_page_bytes() const { return areas_.device_pages.bytes; }
  /// Nothing in flight and nothing that wants to move and can.
  bool settled() const;
  Tokens tokens(SequenceId sequence, int layer) const;
  const RuntimeCounters& counters() const { return counters_; }
  /// One line for each sequence and pool: for people and for logs of what went wrong.
  std::string describe() const;

 private:
  struct Running {
    std::uint32_t generation = 0;
    bool alive = false;
    bool paused = false;
    std::optional<TokenLayout> layout{};
    std::vector<Tokens> appended{};  // by layer
    std::vector<BlockId> own{}, visual{};
    Tokens settled_own = 0;   // blocks of the own strand that have an action
    std::uint32_t epoch = 0;  // of its tokens: another one after each truncation
    Tokens lost_from = kNeverLost;
  };
  // What a group in flight is for.
  struct Errand {
    enum class Kind : std::uint8_t { append, step, transition, prefetch };
    Ticket ticket{};
    Kind kind = Kind::append;
    SequenceId sequence{};
    std::uint32_t epoch = 0;
    Tokens first_token = 0;
    int layer = 0;
    std::uint64_t step = 0;
    BlockId block{};
    LayerKind layer_kind = LayerKind::planned;
  };
  struct Step {
    std::uint64_t id = 0;
    int layer = 0;
    int groups = 0;          // in flight
    bool announced = false;  // the caller waits for it
    Status status = Status::ok;
    std::vector<SequenceId> sequences{};
  };
  struct Wish {
    BlockId block{};
    LayerKind kind = LayerKind::planned;
  };
  struct Prefetched {
    int layer = 0;
    std::vector<StreamedPage> pages{};
    std::vector<int> slots{};  // by chunk
    std::vector<Ticket> copied{};
  };
  // What an append has made so far.
  struct Changes {
    int own_blocks = 0, visual_blocks = 0;
    std::vector<std::pair<BlockId, int>> pages;  // and their layers
  };
  // What a sequence of a batch needs beside its lists.
  struct RequestRoom {
    int parts = 0, cpu_parts = 0, next_part = 0, next_cpu_part = 0;
    Bytes partial_bytes = 0;
    Address partials{}, host_queries{}, host_partials{}, query_positions{};
  };
  struct Areas {
    Address staging{}, scratch{}, partials{}, device_pages{}, host_pages{}, tables{};
  };
  static constexpr Tokens kNeverLost = std::numeric_limits<Tokens>::max();

  static Areas carve(Device& device, const RuntimeConfig& config, const KvCacheMemory& memory);

  // Sequences
  Running* find(SequenceId id);
  const Running* find(SequenceId id) const;
  SequenceId start(TokenLayout layout);
  static std::vector<BlockId>& blocks_of(Running& sequence, Strand strand);
  bool is_even(const Running& sequence) const;
  bool is_complete(const Block& block) const;
  bool ends_in_block(const Running& sequence, Tokens tokens) const;
  std::optional<Tokens> cut_before(const Running& sequence, Tokens tokens) const;
  Tokens page_begin(const Running& sequence, Tokens token) const;
  PageShape shape(Strand strand, bool low) const;
  Bytes rows_bytes(Tokens tokens) const;
  static ContentId identity(BlockId id, int layer);
  Status no_room(Status status);

  // Appending
  Status open_page(Running& sequence, const LayoutPiece& piece, int layer, Changes& changes);
  void undo(Running& sequence, const Changes& changes);
  void add_rows(Running& sequence, const LayoutPiece& piece, Tokens begin,
                const AppendRequest& request);
  void finish_append(Running& sequence, int layer, Tokens end, Ticket ticket);
  Status share_blocks(const Running& source, SequenceId copy);
  Status copy_block(BlockId from, std::vector<BlockId>& to);
  void drop(BlockId block, bool awake);
  void give_back(std::span<const Address> slots);

  // Placement
  bool may_be_low(Strand strand, LayerKind kind) const;
  bool wants_low(const Block& block, LayerKind kind) const;
  std::size_t group_of(Strand strand, LayerKind kind) const;
  void choose_action(Block& block, LayerKind kind);
  void change_action(Block& block, LayerKind kind, Action action);
  void forget_action(const Block& block, LayerKind kind);
  void settle_own(Running& sequence);
  void wish(BlockId block);
  std::optional<PartState> wanted(const Block& block, LayerKind kind) const;
  void pump();
  Status start_transition(const Wish& wish, PartState transition);
  void add_compression(const Block& block, const PageSlots& page, const ContentId& content,
                       std::uint64_t generation);
  Status take_device(Bytes bytes, Address& slot);
  Status make_room(Bytes bytes);
  Bytes reserve_bytes() const;
  Status await_arrival(const Block& block, LayerKind kind);
  int first_layer(LayerKind kind) const;
  Bytes freed_bytes(const Block& block, LayerKind kind) const;

  // Attending
  Status check(std::span<const AttendRequest> batch, int layer) const;
  bool is_causal(const AttendRequest& request) const;
  void gather(std::span<const AttendRequest> batch, int layer);
  void list_streamed();
  bool is_prefetched(int layer) const;
  bool queues_have_room(std::span<const AttendRequest> batch, bool ahead) const;
  bool reserve(std::span<const AttendRequest> batch, int layer);
  bool reserve_request(const AttendRequest& request, int layer, RequestRoom& room);
  bool write_tables(ListedPages& list, const AttendRequest& request);
  template <typename T>
  T* in_tables(const Address& address) const;
  void point_to_slot(const ListedPages& list, const Address& slot);
  Attend attend_op(const ListedPages& list, const AttendRequest& request,
                   const Address& pages) const;
  Submitted submit_part(QueueId queue, std::span<const Ticket> after, int layer);
  void add_part(Ticket ticket, int layer);
  Status submit_step(std::span<const AttendRequest> batch, int layer, bool ahead,
                     std::span<const Ticket> after);
  Status submit_cpu(std::span<const AttendRequest> batch, int layer, Ticket& done);
  Submitted submit_chunk(std::span<const AttendRequest> batch, int layer, int chunk, int slot,
                         std::array<Ticket, 2> after);
  Submitted copy_chunk(int chunk, int slot);
  void add_merge(const AttendRequest& request, const RequestRoom& room);
  void prefetch(std::span<const AttendRequest> batch, int layer);
  void drop_prefetched();

  // Outcomes
  void progress();
  void collect(const Completion& completion);
  void end_append(const Errand& errand, Status status);
  void end_transition(const Errand& errand, Status status);
  void end_steps();
  void spoil_steps(SequenceId sequence, std::uint64_t after_step, Status status);
  void lose(BlockId block, int layer, Status status);
  void lose(SequenceId sequence, Tokens first_token, int layer, Status status);
  void find_corruption(int layer);

  RuntimeConfig config_;
  Device& device_;
  GroupLedger ledger_;
  QueueId h2d_, d2h_, compute_, host_;
  std::byte* host_memory_;
  std::byte* tables_memory_;
  Areas areas_;
  PagePool device_pool_, host_pool_;
  StagingRing staging_;
  FencedRing partials_, tables_;
  BlockStore blocks_;
  std::vector<Running> sequences_;
  std::vector<std::uint32_t> free_sequences_;
  std::array<Shares, kMaxGroups> targets_{};
  std::array<std::array<Tokens, kActions>, kMaxGroups> assigned_{};
  std::deque<Errand> errands_;  // in the order of submission
  std::deque<Wish> wishes_;
  std::deque<Prefetched> prefetched_;  // in the order of layers
  std::deque<Step> steps_;
  std::deque<RuntimeEvent> events_;
  std::uint64_t step_ = 0, clock_ = 0;
  std::int64_t streamed_pages_ = 0;
  bool stuck_ = false;  // nothing that wants to move can, for want of memory
  RuntimeCounters counters_;
  // Of one call, kept for their memory.
  AttentionLists lists_;
  std::vector<StreamedPage> streamed_;
  int streamed_copies_ = 0;
  std::vector<RequestRoom> request_rooms_;
  std::vector<LayoutPiece> pieces_;
  std::vector<Op> ops_;
  std::vector<Ticket> after_;
  std::vector<Address> given_up_;
};

}  // namespace modalkv
