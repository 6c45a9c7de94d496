// Attention of a batch at a layer: what is read from where, and in which order it is brought there.
#include <algorithm>
#include <cstring>

#include "runtime/kv_cache.hpp"

namespace modalkv {
Attended KvCache::attend(std::span<const AttendRequest> batch, int layer,
                         std::span<const Ticket> after) {
  progress();
  if (const Status status = check(batch, layer); status != Status::ok) return {status};
  gather(batch, layer);
  const bool ahead = is_prefetched(layer);
  // What does not fit while nothing is in use never will.
  const bool idle = ledger_.idle(), rings_empty = partials_.empty() && tables_.empty();
  if (!queues_have_room(batch, ahead)) return {idle ? Status::rejected : no_room(Status::busy)};
  if (!reserve(batch, layer)) {
    partials_.cancel();
    tables_.cancel();
    return {rings_empty ? Status::rejected : no_room(Status::busy)};
  }
  steps_.push_back({.id = ++step_, .layer = layer});
  for (const AttendRequest& request : batch) steps_.back().sequences.push_back(request.sequence);
  const Status status = submit_step(batch, layer, ahead, after);
  partials_.close(ledger_.fence());
  tables_.close(ledger_.fence());
  if (status != Status::ok) {
    // What was submitted harms nobody, and nobody is told of it.
    end_steps();
    return {status == Status::rejected ? status : no_room(status)};
  }
  steps_.back().announced = true;
  ++counters_.attends;
  prefetch(batch, layer);
  return {Status::ok, step_};
}

Status KvCache::check(std::span<const AttendRequest> batch, int layer) const {
  if (batch.empty() || layer < 0 || layer >= config_.layers) return Status::rejected;
  for (const AttendRequest& request : batch) {
    const Running* sequence = find(request.sequence);
    const Bytes rows = request.tokens * config_.query_heads;
    if (sequence == nullptr || sequence->paused || sequence->lost_from != kNeverLost ||
        request.tokens < 1 ||
        request.tokens > sequence->appended[static_cast<std::size_t>(layer)] ||
        request.queries.bytes != rows * config_.head_dim * 2 ||
        request.outputs.bytes != rows * config_.head_dim * 2 ||
        (request.log_sum_exp.bytes != 0 && request.log_sum_exp.bytes != rows * 4))
      return Status::rejected;
  }
  return Status::ok;
}

// Lists all pages that the batch reads at a layer, and those to be staged.
void KvCache::gather(std::span<const AttendRequest> batch, int layer) {
  ++clock_;
  const LayerKind kind = blocks_.kind(layer);
  lists_.begin(staging_.slot_bytes());
  for (std::size_t r = 0; r < batch.size(); ++r) {
    Running& sequence = *find(batch[r].sequence);
    lists_.begin_request(static_cast<int>(r));
    const Tokens appended = sequence.appended[static_cast<std::size_t>(layer)];
    const auto add = [&](BlockId id, Tokens index, Tokens tokens) {
      Block& block = blocks_[id];
      block.used_at = clock_;
      const Part& part = block.parts[static_cast<std::size_t>(kind)];
      const PagePlace place = !on_host(part.state)     ? PagePlace::resident
                              : is_on_cpu(part.action) ? PagePlace::cpu
                                                       : PagePlace::staged;
      const Address& page = block.pages[static_cast<std::size_t>(layer)].now;
      lists_.add(block.strand, part.low, place, {id, page, 0, &block, index}, tokens);
    };
    const Tokens own = sequence.layout->own_tokens(appended);
    for (Tokens i = 0; i * config_.own_page_tokens < own; ++i)
      add(sequence.own[static_cast<std::size_t>(i)], i,
          std::min(config_.own_page_tokens, own - i * config_.own_page_tokens));
    const Tokens visual = sequence.layout->visual_blocks(appended);
    for (Tokens i = 0; i < visual; ++i) {
      // Pages behind the end of an image are hidden there; only the last block may be filling.
      const bool filling = i + 1 == visual && ends_in_block(sequence, appended);
      add(sequence.visual[static_cast<std::size_t>(i)], i,
          filling ? appended - sequence.layout->visual_first_token(i) : config_.visual_page_tokens);
    }
  }
  list_streamed();
}

bool KvCache::is_causal(const AttendRequest& request) const {
  return request.tokens > 1 || config_.window > 0;
}

bool KvCache::queues_have_room(std::span<const AttendRequest> batch, bool ahead) const {
  const int chunks = lists_.chunks(), copies = ahead ? 0 : streamed_copies_;
  const auto requests = static_cast<int>(batch.size()), lists = static_cast<int>(lists_.size());
  const int verified =
      config_.verify_every > 0 ? static_cast<int>(streamed_.size()) / config_.verify_every + 1 : 0;
  return ledger_.has_room(compute_, 2 + chunks, lists + verified + 2 * requests) &&
         ledger_.has_room(h2d_, 1 + chunks, copies + lists) &&
         ledger_.has_room(d2h_, 1, requests) && ledger_.has_room(host_, 1, lists);
}

// Tables and partial results for all lists, filled.
bool KvCache::reserve(std::span<const AttendRequest> batch, int layer) {
  request_rooms_.assign(batch.size(), {});
  for (std::size_t i = 0; i < lists_.size(); ++i) {
    RequestRoom& room = request_rooms_[static_cast<std::size_t>(lists_[i].request)];
    ++room.parts;
    if (lists_[i].place == PagePlace::cpu) ++room.cpu_parts;
  }
  for (std::size_t r = 0; r < batch.size(); ++r)
    if (!reserve_request(batch[r], layer, request_rooms_[r])) return false;
  for (std::size_t i = 0; i < lists_.size(); ++i)
    if (!write_tables(lists_[i], batch[static_cast<std::size_t>(lists_[i].request)])) return false;
  return true;
}

template <typename T>
T* KvCache::in_tables(const Address& address) const {
  return reinterpret_cast<T*>(tables_memory_ + address.offset);
}

bool KvCache::reserve_request(const AttendRequest& request, int layer, RequestRoom& room) {
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
  if (!is_causal(request)) return true;
  const auto positions = tables_.take(request.tokens * 4);
  if (!positions) return false;
  room.query_positions = *positions;
  const Tokens first =
      find(request.sequence)->appended[static_cast<std::size_t>(layer)] - request.tokens;
  for (Tokens token = 0; token < request.tokens; ++token)
    in_tables<std::int32_t>(*positions)[token] = static_cast<std::int32_t>(first + token);
  return true;
}

bool KvCache::write_tables(ListedPages& list, const AttendRequest& request) {
  RequestRoom& room = request_rooms_[static_cast<std::size_t>(list.request)];
  const bool cpu = list.place == PagePlace::cpu;
  const std::int64_t part = room.next_part++;
  list.partials = {room.partials.space, room.partials.offset + part * room.partial_bytes,
                   room.partial_bytes};
  if (cpu) {
    list.device_partials = list.partials;
    list.partials = {room.host_partials.space,
                     room.host_partials.offset + room.next_cpu_part++ * room.partial_bytes,
                     room.partial_bytes};
  }
  const auto pages = static_cast<Tokens>(list.pages.size());
  const Tokens page_tokens = shape(list.strand, list.low).tokens;
  const auto table = tables_.take(pages * kPageTableEntryBytes);
  if (!table) return false;
  list.table = *table;
  list.positions = list.hidden = {};
  if (is_causal(request)) {
    const auto positions = tables_.take(list.tokens * 4);
    if (!positions) return false;
    list.positions = *positions;
  }
  if (list.hides) {
    const auto hidden = tables_.take(divide_up(list.tokens, 64) * 8);
    if (!hidden) return false;
    list.hidden = *hidden;
  }
  const TokenLayout& layout = *find(request.sequence)->layout;
  for (Tokens i = 0; i < pages; ++i) {
    const ListedPage& page = list.pages[static_cast<std::size_t>(i)];
    const Tokens first = i * page_tokens, tokens = std::min(page_tokens, list.tokens - first);
    in_tables<std::int64_t>(list.table)[i] = page.page.offset;
    if (list.positions.bytes > 0) {
      std::int32_t* to = in_tables<std::int32_t>(list.positions) + first;
      if (list.strand == Strand::own) {
        layout.own_positions(page.block_index * page_tokens,
                             {to, static_cast<std::size_t>(tokens)});
      } else {
        const Tokens begin = layout.visual_first_token(page.block_index);
        for (Tokens token = 0; token < tokens; ++token)
          to[token] = static_cast<std::int32_t>(begin + token);
      }
    }
    if (list.hides)
      for (Tokens word = 0; word < divide_up(tokens, 64); ++word)
        in_tables<std::uint64_t>(list.hidden)[first / 64 + word] =
            page.block->hidden.empty() ? 0 : page.block->hidden[static_cast<std::size_t>(word)];
  }
  return true;
}

// Where staged pages will lie is known when their slot is.
void KvCache::point_to_slot(const ListedPages& list, const Address& slot) {
  for (std::size_t i = 0; i < list.pages.size(); ++i)
    in_tables<std::int64_t>(list.table)[i] = slot.offset + list.pages[i].staged_at;
}

Attend KvCache::attend_op(const ListedPages& list, const AttendRequest& request,
                          const Address& pages) const {
  const RequestRoom& room = request_rooms_[static_cast<std::size_t>(list.request)];
  return {.queries = list.place == PagePlace::cpu ? room.host_queries : request.queries,
          .pages = pages,
          .page_table = list.table,
          .partials = list.partials,
          .shape = shape(list.strand, list.low),
          .tokens = list.tokens,
          .query_heads = config_.query_heads,
          .query_tokens = static_cast<std::int32_t>(request.tokens),
          .input = config_.input,
          .logit_scale = config_.logit_scale,
          .query_positions = room.query_positions,
          .token_positions = list.positions,
          .hidden = list.hidden,
          .window = config_.window};
}

// Submits a group of the step and remembers it.
Submitted KvCache::submit_part(QueueId queue, std::span<const Ticket> after, int layer) {
  const Submitted submitted = ledger_.submit(queue, ops_, after);
  if (submitted.status == Status::ok) add_part(submitted.ticket, layer);
  return submitted;
}

void KvCache::add_part(Ticket ticket, int layer) {
  errands_.push_back({.ticket = ticket, .kind = Errand::Kind::step, .layer = layer, .step = step_});
  ++steps_.back().groups;
}

Status KvCache::submit_step(std::span<const AttendRequest> batch, int layer, bool ahead,
                            std::span<const Ticket> after) {
  after_.assign(after.begin(), after.end());
  // Attention to resident pages first: it covers the copies.
  ops_.clear();
  for (std::size_t i = 0; i < lists_.size(); ++i)
    if (lists_[i].place == PagePlace::resident)
      ops_.push_back(attend_op(lists_[i], batch[static_cast<std::size_t>(lists_[i].request)],
                               device_pool_.where()));
  Submitted last = submit_part(compute_, after_, layer);
  if (last.status != Status::ok) return last.status;
  Ticket cpu{};
  if (const Status status = submit_cpu(batch, layer, cpu); status != Status::ok) return status;
  Prefetched staged;
  if (ahead) {
    staged = std::move(prefetched_.front());
    prefetched_.pop_front();
    for (const int slot : staged.slots) staging_[slot].waits = false;
  } else if (lists_.chunks() > 0) {
    drop_prefetched();
  }
  for (int chunk = 0; chunk < lists_.chunks(); ++chunk) {
    int slot;
    Ticket copied;
    if (ahead) {
      slot = staged.slots[static_cast<std::size_t>(chunk)];
      copied = staged.copied[static_cast<std::size_t>(chunk)];
    } else {
      slot = staging_.take();
      const Submitted copy = copy_chunk(chunk, slot);
      if (copy.status != Status::ok) return copy.status;
      add_part(copy.ticket, layer);
      copied = copy.ticket;
    }
    last = submit_chunk(batch, layer, chunk, slot, {{copied, last.ticket}});
    if (last.status != Status::ok) return last.status;
    staging_[slot].last_reader = last.ticket;
  }
  ops_.clear();
  for (std::size_t r = 0; r < batch.size(); ++r) add_merge(batch[r], request_rooms_[r]);
  const Ticket before[] = {last.ticket, cpu};
  return submit_part(compute_, before, layer).status;
}

void KvCache::add_merge(const AttendRequest& request, const RequestRoom& room) {
  const auto rows = static_cast<std::int32_t>(request.tokens * config_.query_heads);
  Address whole{room.partials.space, room.partials.offset, room.partial_bytes};
  if (room.parts > 1) {
    const Bytes parts_bytes = room.parts * room.partial_bytes;
    const Address parts{whole.space, whole.offset, parts_bytes};
    whole.offset += parts_bytes;
    ops_.push_back(Merge{parts, whole, room.parts, rows, config_.head_dim});
  }
  ops_.push_back(
      Finish{whole, request.outputs, request.log_sum_exp, rows, config_.head_dim, config_.input});
}

// Queries go to the host, its cores attend to what lies there, and their partials come back.
Status KvCache::submit_cpu(std::span<const AttendRequest> batch, int layer, Ticket& done) {
  ops_.clear();
  for (std::size_t r = 0; r < batch.size(); ++r)
    if (request_rooms_[r].cpu_parts > 0)
      ops_.push_back(Copy{batch[r].queries, request_rooms_[r].host_queries});
  if (ops_.empty()) return Status::ok;
  Submitted submitted = submit_part(d2h_, after_, layer);
  if (submitted.status != Status::ok) return submitted.status;
  ops_.clear();
  for (std::size_t i = 0; i < lists_.size(); ++i)
    if (lists_[i].place == PagePlace::cpu)
      ops_.push_back(attend_op(lists_[i], batch[static_cast<std::size_t>(lists_[i].request)],
                               host_pool_.where()));
  submitted = submit_part(host_, std::span(&submitted.ticket, 1), layer);
  if (submitted.status != Status::ok) return submitted.status;
  ops_.clear();
  for (std::size_t i = 0; i < lists_.size(); ++i)
    if (lists_[i].place == PagePlace::cpu)
      ops_.push_back(Copy{lists_[i].partials, lists_[i].device_partials});
  submitted = submit_part(h2d_, std::span(&submitted.ticket, 1), layer);
  done = submitted.ticket;
  return submitted.status;
}

// Attention to one staging slot, some of its pages verified before.
Submitted KvCache::submit_chunk(std::span<const AttendRequest> batch, int layer, int chunk,
                                int slot, std::array<Ticket, 2> after) {
  const Address& where = staging_[slot].where;
  ops_.clear();
  for (std::size_t i = 0; i < lists_.size(); ++i) {
    const ListedPages& list = lists_[i];
    if (list.place != PagePlace::staged || list.chunk != chunk) continue;
    point_to_slot(list, where);
    for (const ListedPage& page : list.pages)
      if (is_complete(*page.block) && config_.verify_every > 0 &&
          ++streamed_pages_ % config_.verify_every == 0) {
        ++counters_.verified_pages;
        ops_.push_back(VerifyPage{{where.space, where.offset + page.staged_at, page.page.bytes},
                                  identity(page.id, layer),
                                  page.id.generation});
      }
  }
  for (std::size_t i = 0; i < lists_.size(); ++i)
    if (lists_[i].place == PagePlace::staged && lists_[i].chunk == chunk)
      ops_.push_back(
          attend_op(lists_[i], batch[static_cast<std::size_t>(lists_[i].request)], where));
  return submit_part(compute_, after, layer);
}

// Neighbours on the host and in the slot become one copy.
Submitted KvCache::copy_chunk(int chunk, int slot) {
  const Address& where = staging_[slot].where;
  ops_.clear();
  Bytes bytes = 0;
  const StreamedPage* before = nullptr;
  for (const StreamedPage& page : streamed_) {
    if (page.chunk != chunk) continue;
    bytes += page.from.bytes;
    if (before != nullptr && follows(page, *before)) {
      Copy& copy = std::get<Copy>(ops_.back());
      copy.from.bytes += page.from.bytes;
      copy.to.bytes += page.from.bytes;
    } else {
      ops_.push_back(Copy{page.from, {where.space, where.offset + page.at, page.from.bytes}});
    }
    before = &page;
  }
  const Submitted submitted = ledger_.submit(h2d_, ops_, std::span(&staging_[slot].last_reader, 1));
  if (submitted.status == Status::ok) counters_.streamed_bytes += bytes;
  return submitted;
}

// What has to be staged, in order.
void KvCache::list_streamed() {
  streamed_.clear();
  streamed_copies_ = 0;
  for (std::size_t i = 0; i < lists_.size(); ++i) {
    if (lists_[i].place != PagePlace::staged) continue;
    for (const ListedPage& listed : lists_[i].pages) {
      const StreamedPage page{listed.id, listed.block->last_write, listed.page, lists_[i].chunk,
                              listed.staged_at};
      if (streamed_.empty() || !follows(page, streamed_.back())) ++streamed_copies_;
      streamed_.push_back(page);
    }
  }
}

// Whether exactly what has to be staged was brought ahead.
bool KvCache::is_prefetched(int layer) const {
  return !prefetched_.empty() && prefetched_.front().layer == layer && !streamed_.empty() &&
         prefetched_.front().pages == streamed_;
}

// Fills free staging slots for the layers that come next, around the end of the step.
void KvCache::prefetch(std::span<const AttendRequest> batch, int layer) {
  // All layers of a kind have their blocks in the same places.
  std::array<bool, kLayerKinds> streams{true, true};
  streams[static_cast<std::size_t>(blocks_.kind(layer))] = !streamed_.empty();
  int target = prefetched_.empty() ? layer : prefetched_.back().layer;
  while (staging_.free_slots() > 0) {
    target = (target + 1) % config_.layers;
    if (target == layer) return;
    bool& streams_here = streams[static_cast<std::size_t>(blocks_.kind(target))];
    if (!streams_here) continue;
    gather(batch, target);
    streams_here = !streamed_.empty();
    if (!streams_here) continue;
    const int chunks = streamed_.back().chunk + 1;
    if (chunks > staging_.free_slots() || !ledger_.has_room(h2d_, chunks, streamed_copies_)) return;
    Prefetched staged{.layer = target, .pages = streamed_};
    for (int chunk = 0; chunk < chunks; ++chunk) {
      const int slot = staging_.take();
      const Submitted copied = copy_chunk(chunk, slot);
      if (copied.status != Status::ok) {
        staging_.untake(1);
        for (const int used : staged.slots) staging_[used].waits = false;
        return;  // wasted: the next step brings its own
      }
      errands_.push_back({.ticket = copied.ticket, .kind = Errand::Kind::prefetch});
      staging_[slot].waits = true;
      staged.slots.push_back(slot);
      staged.copied.push_back(copied.ticket);
    }
    for (const StreamedPage& page : streamed_) counters_.prefetched_bytes += page.from.bytes;
    prefetched_.push_back(std::move(staged));
  }
}

void KvCache::drop_prefetched() {
  for (const Prefetched& staged : prefetched_) {
    for (const int slot : staged.slots) staging_[slot].waits = false;
    for (const StreamedPage& page : staged.pages)
      counters_.wasted_prefetch_bytes += page.from.bytes;
  }
  prefetched_.clear();
}

}  // namespace modalkv
