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
#include <utility>
#include <vector>

#include "modalkv/runtime.hpp"
#include "runtime/block_store.hpp"
#include "runtime/content_cache.hpp"
#include "runtime/disk_tier.hpp"
#include "runtime/fenced_memory.hpp"
#include "runtime/group_ledger.hpp"
#include "runtime/kv_usage.hpp"
#include "runtime/sequence_lists.hpp"
#include "runtime/staging_ring.hpp"
#include "runtime/token_choice.hpp"
#include "runtime/token_layout.hpp"

namespace modalkv {

/// Host memory of a node, whose host queue attends to what lies there.
struct HostArea {
  std::span<std::byte> memory{};
  int numa_node = 0;
};

/// Memory of the caller, which outlives the device. `hosts`, one at least, are filled in order;
/// `tables` is seen by both sides.
struct KvCacheMemory {
  std::span<std::byte> device{};
  std::vector<HostArea> hosts{};
  std::span<std::byte> tables{};
  Bytes host_chunk_bytes = 0;  ///< no copy crosses a multiple of it on the host; 0: any may
};

/// Of all kinds of pages.
Bytes largest_page_bytes(const RuntimeConfig& config);

class KvCache {
 public:
  /// Throws Error where the memory cannot hold what the configuration needs at least.
  KvCache(Device& device, const RuntimeConfig& config, const KvCacheMemory& memory);
  /// Before anything begins. What content leaves for, and comes back from: it is the cache's alone,
  /// and gone before the memory.
  void use_disk(DiskTier& disk) { disk_ = &disk; }

  /// What the plan wants of new and of present KV, as shares of each group of tokens. Holds until
  /// the next call; at first everything stays on the device in 16 bits while there is room.
  void set_placement(const Placement& placement);

  // As Runtime promises them (modalkv/runtime.hpp).
  std::optional<Begun> begin(std::span<const Segment> prompt,
                             Tokens max_reused_tokens = kAllTokens);
  Tokens lookup(std::span<const Segment> prompt) const;
  void forget_content();
  bool can_admit(std::span<const Segment> prompt, Tokens new_tokens) const;
  Status reserve(SequenceId sequence, Tokens tokens);
  Status append(std::span<const AppendRequest> batch, int layer,
                std::span<const Ticket> after = {});
  Attended attend(std::span<const AttendRequest> batch, int layer,
                  std::span<const Ticket> after = {}, EngineEvent done = {});
  Attended attend_partial(std::span<const AttendRequest> batch, int layer,
                          std::span<const Ticket> after = {}, EngineEvent done = {});
  bool cancel(std::uint64_t step);
  Status prefetch(std::span<const SequenceId> batch);
  Status pause(SequenceId sequence);
  Status resume(SequenceId sequence);
  Forked fork(SequenceId sequence);
  Truncated truncate(SequenceId sequence, Tokens tokens);
  Status release(SequenceId sequence);
  std::optional<RuntimeEvent> poll(Nanos timeout_ns);
  Status wait(std::uint64_t step, Nanos timeout_ns);

  /// More of a host area may be used: `bytes` from its beginning.
  void grow_host(std::size_t host, Bytes bytes);
  /// Tokens of the running sequences: text, visual.
  std::pair<Tokens, Tokens> held_tokens() const;
  int awake_sequences() const;
  Bytes device_page_bytes() const { return areas_.device_pages.bytes; }
  /// Of pages that no sequence uses, on the device or on the host.
  Bytes idle_bytes(Tier tier) const { return idle_bytes_[static_cast<std::size_t>(tier)]; }
  /// Nothing in flight and nothing that wants to move and can.
  bool settled() const;
  Tokens tokens(SequenceId sequence, int layer) const;
  /// Visual tokens that the sequence keeps in high precision at a layer, ascending; beside the
  /// first ones of images.
  std::span<const Tokens> promoted(SequenceId sequence, int layer) const;
  const RuntimeCounters& counters() const { return counters_; }
  /// What lies where, now. Looks at every page: for metrics, not for every step.
  KvUsage usage() const;
  /// One line for each sequence and pool: for people and for logs of what went wrong.
  std::string describe() const;

 private:
  // The choice of a sequence's visual tokens, and how far their copies in high precision are.
  struct Promotion {
    enum class State : std::uint8_t {
      open,      // layers have not seen the whole prompt
      chosen,    // as soon as there is room
      copying,   // in flight
      kept,      // attended to, and hidden where they are compressed
      given_up,  // all visual tokens are alike
    };
    TokenChoice choice;
    State state = State::open;
    std::uint32_t epoch = 0;      // another one after each time it has begun anew
    int next_layer = 0;           // to be copied
    std::size_t next_token = 0;   // of its chosen ones
    int groups = 0;               // in flight
    Status outcome = Status::ok;  // of those that have ended
  };
  // A leading segment of a prompt whose content is known, behind all before it.
  struct Prefix {
    PrefixId id{};
    Tokens begin = 0, end = 0;
    TokenClass token_class = TokenClass::text;
  };
  struct Running {
    std::uint32_t generation = 0;
    bool alive = false;
    bool paused = false;
    std::optional<TokenLayout> layout{};
    std::vector<Tokens> appended{};  // by layer
    std::vector<BlockId> own{}, visual{}, promoted{};
    Tokens settled_own = 0;   // blocks of the own strand that have an action
    std::uint32_t epoch = 0;  // of its tokens: another one after each truncation
    Tokens lost_from = kNeverLost;
    std::uint64_t used_at = 0;  // when it was last attended to
    std::uint64_t call = 0;     // the latest that it was part of
    Bytes reserved_bytes = 0;   // of device memory, for tokens before `reserved_until`
    Tokens reserved_until = 0;
    std::array<SequenceLists, kLayerKinds> lists{};
    std::optional<Promotion> promotion{};  // nothing: none is made
    std::vector<Prefix> prefixes{};        // that are kept as content, or can be
    std::size_t kept_prefixes = 0;         // of them
    // Whose rows begin the next block of the own strand, which is made when it is needed.
    std::optional<BlockId> tail{};
  };
  // Scores of a list's tokens on their way to the host.
  struct ScoredPart {
    std::size_t part = 0;          // of the call
    std::vector<Tokens> blocks{};  // of the visual strand
    Address on_device{}, on_host{};
    std::vector<float> scores{};  // once they have come
  };
  // What a sequence with an open choice comes to see in a step.
  struct Probing {
    SequenceId sequence{};
    std::uint32_t epoch = 0;  // of its promotion
    std::size_t request = 0;
    ProbeRows rows{};
    bool ends_prompt = false;  // at this layer
    std::vector<ScoredPart> parts{};
  };
  // Tokens that a sequence was given.
  struct Given {
    SequenceId sequence{};
    std::uint32_t epoch = 0;
    Tokens first_token = 0;
  };
  // What a group in flight is for.
  struct Errand {
    enum class Kind : std::uint8_t {
      append,
      step,
      transition,
      prefetch,
      score,
      bring_scores,
      promotion,
      tail,
      suspect
    };
    Ticket ticket{};
    Kind kind = Kind::append;
    std::vector<Given> given{};
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
    EngineEvent done{};  // to be raised by us, not by the device
    Fence fence = 0;     // of its tables
    std::vector<Probing> probings{};
  };
  // A page on the device, which only the device can read: one by one they are verified again.
  struct Suspect {
    BlockId block{};
    int layer = 0;
    bool reopened = false;  // its checksum is as it was, though it is being filled again
  };
  struct Wish {
    BlockId block{};
    LayerKind kind = LayerKind::planned;
  };
  // A part of a list of pages that one operation attends to.
  struct AttendPart {
    int request = 0;
    const KvList* list = nullptr;
    Address hidden{};  // of the whole list
    Tokens first_page = 0, pages = 0, tokens = 0;
    int chunk = 0;  // staged: which staging slot of the step
    Bytes at = 0;   // in the slot
    Address positions{}, partials{};
    Address device_partials{};  // cpu: where its partials are taken
  };
  // What of a staging slot has to hold which pages. Two that are equal have the same bytes there:
  // lists that are made anew have another version.
  struct StagedPart {
    std::uint64_t version = 0;
    std::size_t list = 0;
    Tokens first_page = 0, pages = 0;
    int chunk = 0;
    Bytes at = 0;

    friend bool operator==(const StagedPart&, const StagedPart&) = default;
  };
  struct Prefetched {
    int layer = 0;
    bool partial = false;  // there were too few slots for all of it
    std::vector<StagedPart> parts{};
    Bytes bytes = 0;
    std::vector<int> slots{};  // by chunk
    std::vector<Ticket> copied{};
  };
  // A piece of what a sequence is given.
  struct AppendPiece {
    std::size_t request = 0;
    LayoutPiece piece{};
  };
  // What an append has made so far.
  struct Changes {
    struct Made {
      std::size_t request = 0;
      BlockId block{};
      int layer = -1;            // none: the block itself
      Bytes reserved_bytes = 0;  // that it took of the sequence's
    };
    std::vector<Made> made{};
  };
  // What a page's trailer says.
  struct PageIdentity {
    ContentId content{};
    std::uint64_t generation = 0;

    friend bool operator==(const PageIdentity&, const PageIdentity&) = default;
  };
  // A block of a segment on disk.
  struct StoredBlock {
    Strand strand = Strand::own;
    Tokens index = 0;
    Tokens tail_rows = 0;  // not 0: a copy of a block's first rows
    BlockName name{};
    std::array<bool, kLayerKinds> low{};
  };
  using StoredSegment = std::vector<StoredBlock>;
  // Kept content that a prompt begins with.
  struct Reusable {
    std::vector<UnitId> units{};          // in memory
    std::vector<StoredSegment> stored{};  // those behind them
    Tokens tokens = 0;

    std::size_t segments() const { return units.size() + stored.size(); }
  };
  // A segment on its way to the disk, or from there.
  struct DiskJob {
    std::uint64_t job = 0;
    bool loads = false;
    UnitId unit{};
    std::vector<BlockId> blocks{};  // the job owns them too
    Bytes bytes = 0;
  };
  // What takes the room that it needs as it comes free, and begins once it has all of it.
  struct WaitingLoad {
    DiskJob job{};
    std::optional<UnitId> held{};  // on disk
    std::vector<TierPage> pages{};
    Bytes taken_bytes = 0;
  };
  // What a sequence of a batch needs beside its lists.
  struct RequestRoom {
    int parts = 0, cpu_parts = 0, next_part = 0, next_cpu_part = 0;
    Bytes partial_bytes = 0;
    Address partials{}, host_queries{}, host_partials{}, query_positions{};
  };
  struct Areas {
    Address staging{}, scratch{}, partials{}, device_pages{};
    Address slot_tables{}, list_tables{}, step_tables{};
    std::vector<Address> host_pages{};
  };
  struct PageKind {
    PageShape shape{};
    Bytes bytes = 0;
    Address slot_table{};  // pages in a row
  };
  struct Host {
    PagePool pool;
    QueueId queue{};
    std::byte* memory = nullptr;
  };
  // Tails go when there is need for room, and give back whole slabs.
  static constexpr int kTailLane = 1, kDeviceLanes = 2;
  static constexpr Tokens kNeverLost = std::numeric_limits<Tokens>::max();

  static Areas carve(Device& device, const RuntimeConfig& config, const KvCacheMemory& memory);
  void set_up_pages();

  // Sequences
  Running* find(SequenceId id);
  const Running* find(SequenceId id) const;
  TokenLayout layout_of(std::span<const Segment> prompt) const;
  static std::optional<Tokens> prompt_tokens(std::span<const Segment> prompt);
  SequenceId start(TokenLayout layout);
  static std::vector<BlockId>& blocks_of(Running& sequence, Strand strand);
  static const std::vector<BlockId>& blocks_of(const Running& sequence, Strand strand);
  template <typename Use>
  static void for_each_block(const Running& sequence, Use&& use) {
    for (const Strand strand : kAllStrands)
      for (const BlockId block : blocks_of(sequence, strand)) use(block);
    if (sequence.tail) use(*sequence.tail);
  }
  bool is_even(const Running& sequence) const;
  bool is_appending(SequenceId id) const;
  void reopen(std::vector<BlockId>& blocks, bool verifies);
  bool is_complete(const Block& block) const;
  bool ends_in_block(const Running& sequence, Tokens tokens) const;
  std::optional<Tokens> cut_before(const Running& sequence, Tokens tokens) const;
  Tokens page_begin(const Running& sequence, Tokens token) const;
  const PageKind& page_kind(Strand strand, bool low) const {
    return page_kinds_[static_cast<std::size_t>(strand)][low ? 1 : 0];
  }
  Bytes rows_bytes(Tokens tokens) const;
  PageIdentity identity(BlockId id, int layer) const;
  void add_close(const Address& page, const PageShape& shape, Tokens tokens,
                 const PageIdentity& identity);
  Status no_room(Status status);

  // Appending
  Status check(std::span<const AppendRequest> batch, int layer);
  Status open_page(const AppendPiece& piece, std::span<const AppendRequest> batch, int layer,
                   Changes& changes);
  void undo(std::span<const AppendRequest> batch, const Changes& changes);
  void add_rows(const AppendPiece& piece, const AppendRequest& request, int layer);
  void finish_append(std::span<const AppendRequest> batch, int layer, Ticket ticket);
  Status share_blocks(const Running& source, SequenceId copy);
  void share(BlockId block, SequenceId owner);
  Status copy_block(BlockId from, SequenceId owner, std::vector<BlockId>& to);
  void drop(BlockId block, SequenceId owner, bool awake);
  void let_go(BlockId block);
  void give_back(std::span<const Address> slots);
  void end_part(BlockId block, LayerKind kind, bool well);
  void count_idle(const Block& block, int sign);

  // Placement
  bool may_leave() const;
  bool may_be_low(Strand strand, LayerKind kind) const;
  bool may_be_low(const Block& block, LayerKind kind) const;
  bool wants_low(const Block& block, LayerKind kind) const;
  std::size_t group_of(const Block& block, LayerKind kind) const;
  void choose_action(Block& block, LayerKind kind);
  void change_action(Block& block, LayerKind kind, Action action);
  void assign_action(Block& block, LayerKind kind, Action action);
  void forget_action(Block& block, LayerKind kind);
  void settle_own(Running& sequence, Tokens appended);
  void wish(BlockId block);
  std::optional<PartState> wanted(const Block& block, LayerKind kind) const;
  void pump();
  Status start_transition(const Wish& wish, PartState transition);
  std::pair<Address, Address> scratch_rows(Tokens tokens) const;
  void add_compression(const Block& block, const PageSlots& page, const PageIdentity& identity);
  Status take_device(Bytes bytes, Running& sequence, Address& slot);
  std::optional<Address> take_host(Bytes bytes, int layer, bool cpu);
  Host& host_of(const Address& page);
  PagePool& pool_of(const Address& page);
  Tier tier_of(const Address& page) const {
    return page.space == device_pool_.where().space ? Tier::device : Tier::host;
  }
  Bytes idle_tail_bytes(Tier tier) const {
    return idle_tail_bytes_[static_cast<std::size_t>(tier)];
  }
  Status make_room(Bytes bytes);
  // A part that can leave the device, or take less room there.
  struct Candidate {
    bool used = false;  // by a sequence
    bool leaves = false, may_be_promoted = false;
    std::uint64_t used_at = 0;
    Wish wish{};
  };
  std::vector<Candidate> candidates() const;
  Status move_out(const Candidate& candidate, Bytes& coming);
  Status make_host_room(Bytes bytes);
  std::uint64_t used_at(const Block& block) const;
  Bytes reserve_bytes() const;
  Status await_arrival(const Block& block, LayerKind kind);
  int first_layer(LayerKind kind) const;
  Bytes freed_bytes(const Block& block, LayerKind kind) const;

  // Content
  std::vector<Prefix> prefixes_of(std::span<const Segment> prompt) const;
  Reusable reusable(const std::vector<Prefix>& prefixes, const TokenLayout& layout,
                    Tokens max_tokens) const;
  void cut(Reusable& found, const std::vector<Prefix>& prefixes, const TokenLayout& layout,
           Tokens max_tokens) const;
  Tokens reuse(SequenceId id, Tokens max_tokens);
  void take_over(SequenceId id, const Reusable& found);
  Status bring_tail(SequenceId id);
  static BlockName page_name(const Prefix& prefix, Strand strand, Tokens index);
  static BlockName tail_name(const Prefix& prefix, Tokens index);
  BlockName name_of(const Running& sequence, Strand strand, Tokens index) const;
  BlockId make_block(const Running& sequence, Strand strand, Tokens index);
  UnitId keep(CachedSegment segment, const Prefix& prefix);
  void keep_content(SequenceId id);
  bool keep_segment(SequenceId id);
  std::optional<BlockId> copy_tail(const Running& sequence, const Prefix& prefix, Tokens rows);
  EvictionFacts facts_of(const CachedSegment& segment, const Prefix& prefix) const;
  void drop_content(UnitId unit);
  Bytes evict_content(Bytes bytes, Tier tier);
  Bytes evict_tails(Bytes bytes, Tier tier);
  bool lies_in(const CachedSegment& segment, Tier tier) const;
  Bytes retired_bytes(Tier tier) const;

  // Disk
  static PageKey key_of(const BlockName& name, int layer, const PageShape& shape);
  std::span<std::byte> host_bytes(const Address& page);
  std::optional<StoredSegment> on_disk(const Prefix& prefix, const TokenLayout& layout) const;
  bool find_on_disk(StoredBlock& block, bool stays_high) const;
  std::optional<UnitId> load_segment(const Running& sequence, const Prefix& prefix,
                                     std::optional<UnitId> before, const StoredSegment& stored,
                                     std::optional<UnitId> held);
  void load_segments(const Running& sequence, Reusable& found);
  enum class Departure : std::uint8_t { at_once, when_stored, not_now, split };
  Departure depart(UnitId unit);
  void own_blocks(const DiskJob& job);
  void end_disk_job(const DiskJob& job, Status status);
  Status start_load(WaitingLoad& load);
  void start_loads();
  bool end_disk_jobs(Nanos timeout_ns);
  bool is_kept(const DiskJob& job) const;
  void reprice_lost();
  static Nanos disk_reload_ns(Bytes bytes);
  bool is_loading(SequenceId id) const;
  bool await(Nanos timeout_ns);

  // Admission
  Bytes room_for(const TokenLayout& layout, Tokens begin, Tokens end, bool compact) const;
  Bytes room_of(Bytes page_bytes) const;
  Bytes open_bytes() const;
  void set_reserved(Running& sequence, Bytes bytes);

  // Lists
  void pages_moved(const Block& block, LayerKind kind);
  bool list_blocks(Running& sequence, LayerKind kind, const LayoutExtent& extent);
  bool list_block(Running& sequence, LayerKind kind, Strand strand, Tokens index);
  bool list_hidden(KvList& list, const Block& block);
  bool locate(const Running& sequence, KvList& list, int layer, Tokens pages);
  bool hide_promoted(const Running& sequence, const KvList& list, int layer, Tokens pages,
                     LayerPages& at);
  bool enlarge(Address& table, Bytes used_bytes, Bytes bytes);
  void forget_lists(SequenceLists& lists);
  void forget_other_lists(std::span<const SequenceId> batch);
  Tokens tokens_of(const KvList& list, Tokens pages, const LayoutExtent& extent);

  // Attending
  Attended attend(std::span<const AttendRequest> batch, int layer, bool partial,
                  std::span<const Ticket> after, EngineEvent done);
  Status check(std::span<const AttendRequest> batch, int layer, bool partial) const;
  Status lay_out(std::span<const SequenceId> batch, int layer, bool staged_only);
  bool try_lay_out(std::span<const SequenceId> batch, int layer, bool staged_only);
  bool add_parts(std::size_t request, Running& sequence, int layer, const LayoutExtent& extent,
                 bool staged_only);
  AttendPart& add_part(std::vector<AttendPart>& parts, std::size_t request, const KvList& list,
                       int layer, Tokens first_page, Tokens pages, Tokens tokens);
  void add_staged(std::size_t request, const SequenceLists& lists, std::size_t l, int layer,
                  Tokens pages, Tokens tokens);
  int staged_copies(int layer) const;
  std::span<const AttendPart> parts_of_chunk(int chunk) const;
  int prefetched_chunks(int layer) const;
  bool queues_have_room(std::span<const AttendRequest> batch, int ahead, int scores) const;
  bool reserve(std::span<const AttendRequest> batch, int layer, bool causal);
  bool reserve_request(const AttendRequest& request, int layer, bool causal, RequestRoom& room);
  bool reserve_part(AttendPart& part, const AttendRequest& request, int layer, bool causal);
  void write_positions(const AttendPart& part, const Running& sequence, int layer) const;
  template <typename T>
  T* in_tables(const Address& address) const {
    return reinterpret_cast<T*>(tables_memory_ + address.offset);
  }
  // Made in place: operations are large, and there are some for each sequence and step.
  template <typename T>
  T& add_op() {
    return std::get<T>(ops_.emplace_back(std::in_place_type<T>));
  }
  void add_attend(const AttendPart& part, const AttendRequest& request, const Address& pages,
                  const Address& table);
  // A bit a token of the part; no bytes: none is hidden.
  Address hidden_of(const AttendPart& part) const {
    if (part.hidden.bytes == 0) return {};
    const Tokens page_tokens = page_kind(part.list->strand, part.list->low).shape.tokens;
    return {part.hidden.space, part.hidden.offset + part.first_page * page_tokens / 8,
            divide_up(part.tokens, 64) * 8};
  }
  Submitted submit_part(QueueId queue, std::span<const Ticket> after, int layer);
  void add_group(Ticket ticket, int layer, Errand::Kind kind = Errand::Kind::step);
  Status submit_step(std::span<const AttendRequest> batch, int layer, int ahead,
                     std::span<const Ticket> after, Ticket& ended);
  Status submit_cpu(std::span<const AttendRequest> batch, int layer, std::vector<Ticket>& done);
  Submitted submit_chunk(std::span<const AttendRequest> batch, int layer, int chunk, int slot,
                         std::array<Ticket, 2> after);
  Submitted copy_chunk(int layer, int chunk, int slot);
  void add_merge(const AttendRequest& request, const RequestRoom& room);
  void raise_when_done(Ticket ended, EngineEvent done);
  void prefetch_after(int layer);
  bool prefetch_layer(int layer);
  void drop_prefetched();

  // Selection
  std::optional<Promotion> promotion_of(std::span<const Segment> prompt) const;
  bool is_candidate(const Block& block, LayerKind kind) const;
  bool candidates_fit(std::span<const AppendRequest> batch, int layer) const;
  void plan_scores(std::span<const AttendRequest> batch, int layer, int ahead, bool partial);
  bool reserve_scores(Probing& probing);
  void forget_scores(Probing& probing);
  Ticket submit_scores(std::span<const AttendRequest> batch, int layer, Ticket merged);
  Score score_of(const ScoredPart& scored, const Probing& probing, const AttendRequest& request,
                 int layer) const;
  void read_scores(Step& step) const;
  void end_probings(const Step& step);
  void add_scores(const Probing& probing, int layer, const Running& sequence, TokenChoice& choice);
  void promote();
  Status promote(SequenceId id);
  Status take_promoted(SequenceId id);
  bool take_promoted_page(BlockId id);
  std::vector<bool> eligible(const Running& sequence) const;
  Status copy_promoted(SequenceId id);
  bool add_promoted(const Running& sequence, int& layer, std::size_t& token);
  void end_promotion(const Errand& errand, Status status);
  void settle_promotion(SequenceId id);
  void give_up_promotion(SequenceId id);
  void drop_promoted(SequenceId id);
  void reset_promotion(SequenceId id);
  bool promotes(SequenceId id) const;
  Tokens promoted_pages(const Running& sequence) const;

  // Verification
  VerifyPage verification(const Address& page, BlockId id, int layer) const;
  void plan_verification();
  void add_verification(const AttendPart& part, const Address& slot_pages, int layer);
  bool is_sampled();
  void find_corruption(int layer, const Step& step);
  bool is_corrupt(BlockId id, int layer);
  bool is_suspected(const Running& sequence) const;
  void verify_suspects();

  // Outcomes
  Errand& add_errand(Errand::Kind kind, Ticket ticket);
  void progress();
  void collect(const Completion& completion);
  void end_append(const Errand& errand, Status status);
  void open_from(const Running& sequence, Tokens first_token);
  void end_transition(const Errand& errand, Status status);
  void end_steps();
  void spoil_steps(SequenceId sequence, std::uint64_t after_step, Status status);
  void lose(std::vector<BlockId> blocks, int layer, Status status);
  void lose_of(std::uint32_t owner, std::span<const BlockId> lost, int layer, Status status);
  void lose_corrupt(std::vector<BlockId> blocks, int layer);
  Tokens first_token_of(const Running& sequence, std::span<const BlockId> lost) const;
  void lose(SequenceId sequence, Tokens first_token, int layer, Status status);

  RuntimeConfig config_;
  Device& device_;
  DiskTier* disk_ = nullptr;
  GroupLedger ledger_;
  QueueId h2d_, d2h_, compute_;
  std::byte* tables_memory_;
  Bytes host_chunk_bytes_;
  Areas areas_;
  PagePool device_pool_;
  std::vector<Host> hosts_;
  StagingRing staging_;
  std::array<std::array<PageKind, 2>, kStrands> page_kinds_{};  // compressed or not
  TablePool list_tables_;
  FencedRing partials_, tables_;
  BlockStore blocks_;
  ContentCache content_;
  std::vector<Running> sequences_;
  std::vector<std::uint32_t> free_sequences_;
  std::array<Shares, kMaxGroups> targets_{};
  std::array<std::array<Tokens, kActions>, kMaxGroups> assigned_{};
  std::deque<Errand> errands_;  // in the order of submission
  std::deque<Wish> wishes_;
  std::vector<DiskJob> disk_jobs_;  // under way
  std::deque<WaitingLoad> loads_;   // first come, first served
  Bytes storing_bytes_ = 0;         // of disk jobs, on the host
  // Of content that nobody uses, on the device and on the host; of these, in tails.
  std::array<Bytes, 2> idle_bytes_{}, idle_tail_bytes_{};
  std::deque<Prefetched> prefetched_;  // in the order of layers
  std::deque<Step> steps_;
  std::deque<RuntimeEvent> events_;
  std::vector<SequenceId> promotions_;  // chosen, not in flight
  Fence recycled_ = 0;                  // tables of steps until it are overwritten
  std::uint64_t step_ = 0, clock_ = 0, calls_ = 0, list_versions_ = 0;
  Bytes reserved_bytes_ = 0;     // of all sequences
  std::int64_t pages_read_ = 0;  // by steps
  Tokens verify_every_ = 0;      // in the step that is being submitted
  std::deque<Suspect> suspects_;
  bool stuck_ = false;  // nothing that wants to move can, for want of memory
  RuntimeCounters counters_;
  // Of one call, kept for their memory.
  std::vector<SequenceId> batch_;
  std::vector<AttendPart> parts_, staged_parts_;
  std::vector<std::size_t> chunk_begins_;  // in the staged ones
  std::vector<StagedPart> staged_;
  int chunks_ = 0, copies_ = 0;  // copies: of those that were not brought ahead
  Bytes chunk_used_bytes_ = 0;
  std::vector<RequestRoom> request_rooms_;
  std::vector<Probing> probings_;
  std::vector<AppendPiece> pieces_;
  std::vector<Op> ops_;
  std::vector<Ticket> after_;
  std::vector<Address> given_up_;
};

}  // namespace modalkv
