// Attention of a batch at a layer: what is read from where, and in which order it is brought there.
#include <algorithm>

#include "runtime/kv_cache.hpp"

namespace modalkv {
namespace {

// Calls `use(run)` for the runs on the host that pages [begin, end) of a list lie in.
template <typename Use>
void for_each_run(const LayerPages& at, Tokens begin, Tokens end, Use&& use) {
  auto run = std::upper_bound(at.runs.begin(), at.runs.end(), begin,
                              [](Tokens page, const HostRun& r) { return page < r.first_page; });
  for (--run; run != at.runs.end() && run->first_page < end; ++run) use(*run);
}

}  // namespace

Attended KvCache::attend(std::span<const AttendRequest> batch, int layer,
                         std::span<const Ticket> after, EngineEvent done) {
  return attend(batch, layer, false, after, done);
}

Attended KvCache::attend_partial(std::span<const AttendRequest> batch, int layer,
                                 std::span<const Ticket> after, EngineEvent done) {
  return attend(batch, layer, true, after, done);
}

Attended KvCache::attend(std::span<const AttendRequest> batch, int layer, bool partial,
                         std::span<const Ticket> after, EngineEvent done) {
  progress();
  if (const Status status = check(batch, layer, partial); status != Status::ok) return {status};
  for (const AttendRequest& request : batch)
    if (is_loading(request.sequence)) return {no_room(Status::busy)};
  for (const AttendRequest& request : batch)
    if (const Status status = bring_tail(request.sequence); status != Status::ok)
      return {no_room(status)};
  ++clock_;
  batch_.clear();
  for (const AttendRequest& request : batch) {
    batch_.push_back(request.sequence);
    find(request.sequence)->used_at = clock_;
  }
  if (const Status status = lay_out(batch_, layer, false); status != Status::ok)
    return {no_room(status)};
  plan_verification();
  const int ahead = prefetched_chunks(layer);
  copies_ = ahead < chunks_ ? staged_copies(layer) : 0;
  // What does not fit while nothing is in use never will.
  const bool idle = ledger_.idle(), rings_empty = partials_.empty() && tables_.empty();
  if (!queues_have_room(batch, ahead, 0)) return {idle ? Status::rejected : no_room(Status::busy)};
  if (!reserve(batch, layer, !partial)) {
    partials_.cancel();
    tables_.cancel();
    return {rings_empty ? Status::rejected : no_room(Status::busy)};
  }
  plan_scores(batch, layer, ahead, partial);
  steps_.push_back({.id = ++step_, .layer = layer});
  steps_.back().sequences = batch_;
  Ticket last{};
  const Status status = submit_step(batch, layer, ahead, after, last);
  partials_.close(ledger_.fence());
  tables_.close(ledger_.fence());
  if (status != Status::ok) {
    // What was submitted harms nobody, and nobody is told of it.
    end_steps();
    return {no_room(status)};
  }
  steps_.back().announced = true;
  raise_when_done(last, done);
  ++counters_.attends;
  prefetch_after(layer);
  return {Status::ok, step_};
}

Status KvCache::check(std::span<const AttendRequest> batch, int layer, bool partial) const {
  if (batch.empty() || layer < 0 || layer >= config_.layers) return Status::rejected;
  // A window is about positions, and those of the engine's own tokens are not known here.
  if (partial && config_.window > 0) return Status::rejected;
  for (const AttendRequest& request : batch) {
    const Running* sequence = find(request.sequence);
    const Bytes rows = request.tokens * config_.query_heads;
    if (sequence == nullptr || sequence->paused || sequence->lost_from != kNeverLost ||
        request.tokens < 1 || request.queries.bytes != rows * config_.head_dim * 2 ||
        request.outputs.bytes != rows * config_.head_dim * 2 ||
        (request.log_sum_exp.bytes != rows * 4 && (partial || request.log_sum_exp.bytes != 0)))
      return Status::rejected;
    const Tokens appended = sequence->appended[static_cast<std::size_t>(layer)];
    if (partial ? appended == 0 : request.tokens > appended) return Status::rejected;
  }
  return Status::ok;
}

// Parts of lists for all pages that the batch reads at a layer; what is staged in pieces that fit a
// staging slot.
Status KvCache::lay_out(std::span<const SequenceId> batch, int layer, bool staged_only) {
  if (try_lay_out(batch, layer, staged_only)) return Status::ok;
  forget_other_lists(batch);
  list_tables_.recycle(ledger_.passed());
  if (try_lay_out(batch, layer, staged_only)) return Status::ok;
  return list_tables_.settled() ? Status::rejected : Status::busy;
}

// False: there is no memory for the tables.
bool KvCache::try_lay_out(std::span<const SequenceId> batch, int layer, bool staged_only) {
  const LayerKind kind = blocks_.kind(layer);
  parts_.clear();
  staged_parts_.clear();
  staged_.clear();
  chunk_begins_.clear();
  chunks_ = 0;
  chunk_used_bytes_ = 0;
  for (std::size_t r = 0; r < batch.size(); ++r) {
    Running& sequence = *find(batch[r]);
    const LayoutExtent extent =
        sequence.layout->extent(sequence.appended[static_cast<std::size_t>(layer)]);
    if (list_blocks(sequence, kind, extent) && add_parts(r, sequence, layer, extent, staged_only))
      continue;
    forget_lists(sequence.lists[static_cast<std::size_t>(kind)]);  // half done
    return false;
  }
  return true;
}

bool KvCache::add_parts(std::size_t request, Running& sequence, int layer,
                        const LayoutExtent& extent, bool staged_only) {
  SequenceLists& lists = sequence.lists[static_cast<std::size_t>(blocks_.kind(layer))];
  for (std::size_t l = 0; l < lists.lists.size(); ++l) {
    KvList& list = lists.lists[l];
    const bool staged = list.place == PagePlace::staged;
    if (staged_only && !staged) continue;
    const Tokens pages = list.pages(extent);
    if (pages == 0) continue;
    if (!locate(sequence, list, layer, pages)) return false;
    const Tokens tokens = tokens_of(list, pages, extent);
    if (staged) {
      add_staged(request, lists, l, layer, pages, tokens);
    } else {
      add_part(parts_, request, list, layer, 0, pages, tokens);
    }
  }
  return true;
}

// Made in place, as operations are. Its pages may be some of the list's.
KvCache::AttendPart& KvCache::add_part(std::vector<AttendPart>& parts, std::size_t request,
                                       const KvList& list, int layer, Tokens first_page,
                                       Tokens pages, Tokens tokens) {
  AttendPart& part = parts.emplace_back();
  part.request = static_cast<int>(request);
  part.list = &list;
  part.hidden = list.hidden_in(layer);
  part.first_page = first_page;
  part.pages = pages;
  part.tokens = tokens;
  return part;
}

// In pieces that fit what is left of a staging slot.
void KvCache::add_staged(std::size_t request, const SequenceLists& lists, std::size_t l, int layer,
                         Tokens pages, Tokens tokens) {
  const KvList& list = lists.lists[l];
  const PageKind& kind = page_kind(list.strand, list.low);
  for (Tokens page = 0, now = 0; page < pages; page += now) {
    if (chunks_ == 0 || chunk_used_bytes_ + kind.bytes > staging_.slot_bytes()) {
      ++chunks_;
      chunk_used_bytes_ = 0;
      chunk_begins_.push_back(staged_parts_.size());
    }
    now = std::min(pages - page, (staging_.slot_bytes() - chunk_used_bytes_) / kind.bytes);
    AttendPart& part =
        add_part(staged_parts_, request, list, layer, page, now,
                 std::min(now * kind.shape.tokens, tokens - page * kind.shape.tokens));
    part.chunk = chunks_ - 1;
    part.at = chunk_used_bytes_;
    StagedPart& staged = staged_.emplace_back();
    staged.version = lists.version;
    staged.list = l;
    staged.first_page = page;
    staged.pages = now;
    staged.chunk = part.chunk;
    staged.at = part.at;
    chunk_used_bytes_ += now * kind.bytes;
  }
}

// Neighbours on the host and in the slot are one copy.
int KvCache::staged_copies(int layer) const {
  int copies = 0;
  for (const AttendPart& part : staged_parts_)
    for_each_run(part.list->layers[static_cast<std::size_t>(layer)], part.first_page,
                 part.first_page + part.pages, [&](const HostRun&) { ++copies; });
  return copies;
}

// In the order of chunks.
std::span<const KvCache::AttendPart> KvCache::parts_of_chunk(int chunk) const {
  const auto at = static_cast<std::size_t>(chunk);
  const std::size_t end =
      at + 1 < chunk_begins_.size() ? chunk_begins_[at + 1] : staged_parts_.size();
  return std::span(staged_parts_).subspan(chunk_begins_[at], end - chunk_begins_[at]);
}

// `scores`: lists of pages whose tokens are scored.
bool KvCache::queues_have_room(std::span<const AttendRequest> batch, int ahead, int scores) const {
  const auto requests = static_cast<int>(batch.size()),
             parts = static_cast<int>(parts_.size() + staged_parts_.size()),
             staged = static_cast<int>(staged_.size());
  const int cpu_groups = parts > staged ? 1 : 0, score_groups = scores > 0 ? 1 : 0;
  int verified = 0, cpu_verified = 0;
  const auto verifies = [&](const AttendPart& part) {
    if (verify_every_ == 0) return;
    int& ops = part.list->place == PagePlace::cpu ? cpu_verified : verified;
    ops += static_cast<int>(part.pages / verify_every_) + 1;
  };
  std::for_each(parts_.begin(), parts_.end(), verifies);
  std::for_each(staged_parts_.begin(), staged_parts_.end(), verifies);
  if (chunks_ > 0 && staging_.is_doomed()) return false;
  if (!ledger_.has_room(compute_, 2 + chunks_ + score_groups,
                        2 * parts + verified + 2 * requests + scores) ||
      !ledger_.has_room(h2d_, chunks_ - ahead, copies_) ||
      !ledger_.has_room(d2h_, cpu_groups + score_groups, requests + scores))
    return false;
  return std::all_of(hosts_.begin(), hosts_.end(), [&](const Host& host) {
    return ledger_.has_room(host.queue, cpu_groups, parts + cpu_verified);
  });
}

// Tables and partial results for all parts, filled.
bool KvCache::reserve(std::span<const AttendRequest> batch, int layer, bool causal) {
  request_rooms_.assign(batch.size(), {});
  for (const AttendPart& part : parts_) {
    RequestRoom& room = request_rooms_[static_cast<std::size_t>(part.request)];
    ++room.parts;
    if (part.list->place == PagePlace::cpu) ++room.cpu_parts;
  }
  for (const AttendPart& part : staged_parts_)
    ++request_rooms_[static_cast<std::size_t>(part.request)].parts;
  const auto needs_positions = [&](const AttendRequest& request) {
    return causal && (request.tokens > 1 || config_.window > 0);
  };
  for (std::size_t r = 0; r < batch.size(); ++r)
    if (!reserve_request(batch[r], layer, needs_positions(batch[r]), request_rooms_[r]))
      return false;
  const auto reserved = [&](AttendPart& part) {
    const AttendRequest& request = batch[static_cast<std::size_t>(part.request)];
    return reserve_part(part, request, layer, needs_positions(request));
  };
  return std::all_of(parts_.begin(), parts_.end(), reserved) &&
         std::all_of(staged_parts_.begin(), staged_parts_.end(), reserved);
}

bool KvCache::reserve_request(const AttendRequest& request, int layer, bool causal,
                              RequestRoom& room) {
  const std::int64_t rows = request.tokens * config_.query_heads;
  room.partial_bytes = partial_bytes(rows, config_.head_dim);
  const Bytes partials = (room.parts + (room.parts > 1 ? 1 : 0)) * room.partial_bytes;
  const Bytes host_bytes = room.cpu_parts * room.partial_bytes;
  const auto taken = partials_.take(partials);
  if (!taken) return false;
  room.partials = *taken;
  if (room.cpu_parts > 0) {
    const auto queries = tables_.take(request.queries.bytes), results = tables_.take(host_bytes);
    if (!queries || !results) return false;
    room.host_queries = *queries;
    room.host_partials = *results;
  }
  if (!causal) return true;
  const auto positions = tables_.take(request.tokens * 4);
  if (!positions) return false;
  room.query_positions = *positions;
  const Tokens first =
      find(request.sequence)->appended[static_cast<std::size_t>(layer)] - request.tokens;
  for (Tokens token = 0; token < request.tokens; ++token)
    in_tables<std::int32_t>(*positions)[token] = static_cast<std::int32_t>(first + token);
  return true;
}

bool KvCache::reserve_part(AttendPart& part, const AttendRequest& request, int layer, bool causal) {
  RequestRoom& room = request_rooms_[static_cast<std::size_t>(part.request)];
  const auto nth = [&](const Address& all, int n) -> Address {
    return {all.space, all.offset + n * room.partial_bytes, room.partial_bytes};
  };
  part.partials = nth(room.partials, room.next_part++);
  if (part.list->place == PagePlace::cpu) {
    part.device_partials = part.partials;
    part.partials = nth(room.host_partials, room.next_cpu_part++);
  }
  if (!causal) return true;
  const auto positions = tables_.take(part.tokens * 4);
  if (!positions) return false;
  part.positions = *positions;
  write_positions(part, *find(request.sequence), layer);
  return true;
}

void KvCache::write_positions(const AttendPart& part, const Running& sequence, int layer) const {
  const TokenLayout& layout = *sequence.layout;
  const KvList& list = *part.list;
  const Tokens page_tokens = page_kind(list.strand, list.low).shape.tokens;
  for (Tokens page = 0; page < part.pages; ++page) {
    const Tokens block = list.blocks[static_cast<std::size_t>(part.first_page + page)].index;
    const Tokens first = page * page_tokens, tokens = std::min(page_tokens, part.tokens - first);
    std::int32_t* to = in_tables<std::int32_t>(part.positions) + first;
    if (list.strand == Strand::own) {
      layout.own_positions(block * page_tokens, {to, static_cast<std::size_t>(tokens)});
    } else if (list.strand == Strand::promoted) {
      const auto promoted = sequence.promotion->choice.tokens(layer).subspan(
          static_cast<std::size_t>(block * page_tokens), static_cast<std::size_t>(tokens));
      std::transform(promoted.begin(), promoted.end(), to,
                     [](Tokens token) { return static_cast<std::int32_t>(token); });
    } else {
      const Tokens begin = layout.visual_first_token(block);
      for (Tokens token = 0; token < tokens; ++token)
        to[token] = static_cast<std::int32_t>(begin + token);
    }
  }
}

// An operation over a part. `table` is of all pages of its list or, where they are staged, of pages
// in a row.
void KvCache::add_attend(const AttendPart& part, const AttendRequest& request, const Address& pages,
                         const Address& table) {
  const RequestRoom& room = request_rooms_[static_cast<std::size_t>(part.request)];
  const KvList& list = *part.list;
  auto& op = add_op<Attend>();
  op.queries = list.place == PagePlace::cpu ? room.host_queries : request.queries;
  op.pages = pages;
  op.page_table = {table.space, table.offset, part.pages * kPageTableEntryBytes};
  op.partials = part.partials;
  op.shape = page_kind(list.strand, list.low).shape;
  op.tokens = part.tokens;
  op.query_heads = config_.query_heads;
  op.query_tokens = static_cast<std::int32_t>(request.tokens);
  op.input = config_.input;
  op.logit_scale = config_.logit_scale;
  if (part.positions.bytes > 0) {
    op.query_positions = room.query_positions;
    op.token_positions = part.positions;
    op.window = config_.window;
  }
  op.hidden = hidden_of(part);
}

// Submits a group of the step and remembers it.
Submitted KvCache::submit_part(QueueId queue, std::span<const Ticket> after, int layer) {
  const Submitted submitted = ledger_.submit(queue, ops_, after);
  if (submitted.status == Status::ok) add_group(submitted.ticket, layer);
  return submitted;
}

void KvCache::add_group(Ticket ticket, int layer, Errand::Kind kind) {
  Errand& errand = add_errand(kind, ticket);
  errand.layer = layer;
  errand.step = step_;
  ++steps_.back().groups;
}

Status KvCache::submit_step(std::span<const AttendRequest> batch, int layer, int ahead,
                            std::span<const Ticket> after, Ticket& ended) {
  after_.assign(after.begin(), after.end());
  // Attention to resident pages first: it covers the copies.
  ops_.clear();
  for (const AttendPart& part : parts_)
    if (part.list->place == PagePlace::resident) add_verification(part, {}, layer);
  for (const AttendPart& part : parts_)
    if (part.list->place == PagePlace::resident)
      add_attend(part, batch[static_cast<std::size_t>(part.request)], device_pool_.where(),
                 part.list->layers[static_cast<std::size_t>(layer)].table);
  Submitted last = submit_part(compute_, after_, layer);
  if (last.status != Status::ok) return last.status;
  std::vector<Ticket> before;
  if (const Status status = submit_cpu(batch, layer, before); status != Status::ok) return status;
  Prefetched staged;
  if (ahead > 0) {
    staged = std::move(prefetched_.front());
    prefetched_.pop_front();
    for (const int slot : staged.slots) staging_[slot].waits = false;
  }
  // What is brought now takes slots in turn, also those that wait for later layers.
  if (ahead < chunks_) drop_prefetched();
  for (int chunk = 0; chunk < chunks_; ++chunk) {
    int slot;
    Ticket copied;
    if (chunk < ahead) {
      slot = staged.slots[static_cast<std::size_t>(chunk)];
      copied = staged.copied[static_cast<std::size_t>(chunk)];
    } else {
      slot = staging_.take();
      const Submitted copy = copy_chunk(layer, chunk, slot);
      if (copy.status != Status::ok) return copy.status;
      add_group(copy.ticket, layer);
      copied = copy.ticket;
    }
    last = submit_chunk(batch, layer, chunk, slot, {{copied, last.ticket}});
    if (last.status != Status::ok) return last.status;
    staging_[slot].last_reader = last.ticket;
  }
  ops_.clear();
  for (const AttendPart& part : parts_)
    if (part.list->place == PagePlace::cpu)
      ops_.push_back(Copy{part.partials, part.device_partials});
  for (std::size_t r = 0; r < batch.size(); ++r) add_merge(batch[r], request_rooms_[r]);
  before.push_back(last.ticket);
  const Submitted end = submit_part(compute_, before, layer);
  ended = end.ticket;
  if (end.status == Status::ok && !probings_.empty())
    ended = submit_scores(batch, layer, end.ticket);
  return end.status;
}

void KvCache::add_merge(const AttendRequest& request, const RequestRoom& room) {
  const auto rows = static_cast<std::int32_t>(request.tokens * config_.query_heads);
  Address whole{room.partials.space, room.partials.offset, room.partial_bytes};
  if (room.parts > 1) {
    auto& merge = add_op<Merge>();
    merge.partials = {whole.space, whole.offset, room.parts * room.partial_bytes};
    whole.offset += merge.partials.bytes;
    merge.to = whole;
    merge.parts = room.parts;
    merge.rows = rows;
    merge.head_dim = config_.head_dim;
  }
  auto& finish = add_op<Finish>();
  finish.partials = whole;
  finish.outputs = request.outputs;
  finish.log_sum_exp = request.log_sum_exp;
  finish.rows = rows;
  finish.head_dim = config_.head_dim;
  finish.output = config_.input;
}

// Queries go to the host and the cores of each node attend to what lies there. Their partials come
// back with the merge: on the link they would wait behind what is brought ahead.
Status KvCache::submit_cpu(std::span<const AttendRequest> batch, int layer,
                           std::vector<Ticket>& done) {
  ops_.clear();
  for (std::size_t r = 0; r < batch.size(); ++r)
    if (request_rooms_[r].cpu_parts > 0)
      ops_.push_back(Copy{batch[r].queries, request_rooms_[r].host_queries});
  if (ops_.empty()) return Status::ok;
  const Submitted queries = submit_part(d2h_, after_, layer);
  if (queries.status != Status::ok) return queries.status;
  for (std::size_t node = 0; node < hosts_.size(); ++node) {
    const auto here = [&](const AttendPart& part) {
      return part.list->place == PagePlace::cpu && part.list->node == node;
    };
    ops_.clear();
    for (const AttendPart& part : parts_)
      if (here(part)) add_verification(part, {}, layer);
    for (const AttendPart& part : parts_)
      if (here(part))
        add_attend(part, batch[static_cast<std::size_t>(part.request)], hosts_[node].pool.where(),
                   part.list->layers[static_cast<std::size_t>(layer)].table);
    if (ops_.empty()) continue;
    const Submitted attended =
        submit_part(hosts_[node].queue, std::span(&queries.ticket, 1), layer);
    if (attended.status != Status::ok) return attended.status;
    done.push_back(attended.ticket);
  }
  return Status::ok;
}

// Attention to one staging slot, some of its pages verified before.
Submitted KvCache::submit_chunk(std::span<const AttendRequest> batch, int layer, int chunk,
                                int slot, std::array<Ticket, 2> after) {
  const Address& where = staging_[slot].where;
  const auto slot_pages = [&](const AttendPart& part) -> Address {
    return {where.space, where.offset + part.at,
            part.pages * page_kind(part.list->strand, part.list->low).bytes};
  };
  ops_.clear();
  for (const AttendPart& part : parts_of_chunk(chunk))
    add_verification(part, slot_pages(part), layer);
  for (const AttendPart& part : parts_of_chunk(chunk))
    add_attend(part, batch[static_cast<std::size_t>(part.request)], slot_pages(part),
               page_kind(part.list->strand, part.list->low).slot_table);
  return submit_part(compute_, after, layer);
}

Submitted KvCache::copy_chunk(int layer, int chunk, int slot) {
  const Address& where = staging_[slot].where;
  ops_.clear();
  Bytes copied_bytes = 0;
  for (const AttendPart& part : parts_of_chunk(chunk)) {
    const Bytes bytes = page_kind(part.list->strand, part.list->low).bytes;
    const Tokens begin = part.first_page, end = begin + part.pages;
    const auto copy = [&](const HostRun& run) {
      const Tokens from = std::max(run.first_page, begin), to = std::min(run.end(), end);
      auto& op = add_op<Copy>();
      op.from.space = run.from.space;
      op.from.offset = run.from.offset + (from - run.first_page) * bytes;
      op.to.space = where.space;
      op.to.offset = where.offset + part.at + (from - begin) * bytes;
      op.from.bytes = op.to.bytes = (to - from) * bytes;
      copied_bytes += op.to.bytes;
    };
    for_each_run(part.list->layers[static_cast<std::size_t>(layer)], begin, end, copy);
  }
  const Submitted submitted = ledger_.submit(h2d_, ops_, std::span(&staging_[slot].last_reader, 1));
  if (submitted.status == Status::ok) counters_.streamed_bytes += copied_bytes;
  return submitted;
}

// The device raises the engine's word if it can, else the outcome does when it is collected.
void KvCache::raise_when_done(Ticket ended, EngineEvent done) {
  if (done.word == nullptr) return;
  if (device_.export_event(ended, done) != Status::ok) steps_.back().done = done;
}

bool KvCache::cancel(std::uint64_t step_id) {
  for (Step& step : steps_)
    if (step.id == step_id && step.announced) {
      step.status = Status::cancelled;
      return true;
    }
  return false;
}

// How much of what has to be staged, exactly as it has to be, was brought ahead.
int KvCache::prefetched_chunks(int layer) const {
  if (prefetched_.empty() || prefetched_.front().layer != layer || staged_.empty()) return 0;
  const Prefetched& ahead = prefetched_.front();
  const auto chunks = static_cast<int>(ahead.slots.size());
  if (ahead.parts.size() > staged_.size() || chunks > chunks_) return 0;
  const auto end = staged_.begin() + static_cast<std::ptrdiff_t>(ahead.parts.size());
  const bool same = std::equal(ahead.parts.begin(), ahead.parts.end(), staged_.begin());
  return same && (end == staged_.end() || end->chunk >= chunks) ? chunks : 0;
}

Status KvCache::prefetch(std::span<const SequenceId> batch) {
  progress();
  for (const SequenceId id : batch) {
    const Running* sequence = find(id);
    if (sequence == nullptr || sequence->paused || sequence->lost_from != kNeverLost)
      return Status::rejected;
  }
  for (const SequenceId id : batch)
    if (find(id)->tail || is_loading(id)) return Status::ok;  // its first step comes first
  batch_.assign(batch.begin(), batch.end());
  drop_prefetched();
  prefetch_after(config_.layers - 1);
  return Status::ok;
}

// Fills free staging slots for the layers that come next, around the end of the step.
void KvCache::prefetch_after(int layer) {
  // All layers of a kind have their blocks in the same places.
  std::array<bool, kLayerKinds> streams{true, true};
  if (!prefetched_.empty() && prefetched_.back().partial) return;
  int target = prefetched_.empty() ? layer : prefetched_.back().layer;
  for (int i = 0; i < config_.layers && staging_.free_slots() > 0; ++i) {
    target = (target + 1) % config_.layers;
    if (target == layer && !prefetched_.empty()) return;
    bool& streams_here = streams[static_cast<std::size_t>(blocks_.kind(target))];
    if (!streams_here) continue;
    if (lay_out(batch_, target, true) != Status::ok) return;
    streams_here = !staged_.empty();
    if (streams_here && !prefetch_layer(target)) return;
  }
}

// As much of it as there are slots for. False: no more layers can follow.
bool KvCache::prefetch_layer(int layer) {
  const int chunks = std::min(chunks_, staging_.free_slots());
  if (staging_.is_doomed() || !ledger_.has_room(h2d_, chunks, staged_copies(layer))) return false;
  Prefetched staged{.layer = layer, .partial = chunks < chunks_};
  const auto end = std::partition_point(
      staged_.begin(), staged_.end(), [&](const StagedPart& part) { return part.chunk < chunks; });
  staged.parts.assign(staged_.begin(), end);
  const Bytes before = counters_.streamed_bytes;
  for (int chunk = 0; chunk < chunks; ++chunk) {
    const int slot = staging_.take();
    const Submitted copied = copy_chunk(layer, chunk, slot);
    if (copied.status != Status::ok) {
      staging_.untake(1);
      for (const int used : staged.slots) staging_[used].waits = false;
      return false;  // wasted: the next step brings its own
    }
    add_errand(Errand::Kind::prefetch, copied.ticket);
    staging_[slot].waits = true;
    staged.slots.push_back(slot);
    staged.copied.push_back(copied.ticket);
  }
  staged.bytes = counters_.streamed_bytes - before;
  counters_.prefetched_bytes += staged.bytes;
  prefetched_.push_back(std::move(staged));
  return chunks == chunks_;
}

void KvCache::drop_prefetched() {
  for (const Prefetched& staged : prefetched_) {
    for (const int slot : staged.slots) staging_[slot].waits = false;
    counters_.wasted_prefetch_bytes += staged.bytes;
  }
  prefetched_.clear();
}

}  // namespace modalkv
