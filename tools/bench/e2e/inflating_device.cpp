#include "tools/bench/e2e/inflating_device.hpp"

#include <algorithm>
#include <cstring>

namespace modalkv {
namespace {

PageShape sixteen_bit(PageShape shape) {
  shape.format = both(fp16());
  return shape;
}

Bytes rows_bytes(const PageShape& shape) {
  return shape.tokens * shape.kv_heads * shape.head_dim * 2;
}

bool is_packed(const Op& op) {
  const auto* attend = std::get_if<Attend>(&op);
  return attend != nullptr && payload_bits(attend->shape.format.key.number) < 16;
}

}  // namespace

Bytes InflatingDevice::scratch_bytes(const PageShape& shape, Tokens pages) {
  return pages * (2 * rows_bytes(shape) + page_bytes(sixteen_bit(shape)));
}

Bytes InflatingDevice::tables_bytes(Tokens pages) {
  return static_cast<Bytes>(kPageSizes) * pages * kPageTableEntryBytes;
}

void InflatingDevice::use(const Address& scratch, const Address& tables) {
  scratch_ = scratch;
  tables_ = tables;
}

// Of pages one after another; written once, before anything reads it. nullptr: there are too many
// sizes of pages.
const Address* InflatingDevice::table_of(const PageShape& inflated) {
  const Bytes bytes = page_bytes(inflated);
  for (const auto& [page, table] : tables_of_)
    if (page == bytes) return &table;
  if (tables_of_.size() == kPageSizes) return nullptr;
  const Bytes each = tables_.bytes / static_cast<Bytes>(kPageSizes);
  const Address table{tables_.space, tables_.offset + static_cast<Bytes>(tables_of_.size()) * each,
                      each};
  auto* entries = reinterpret_cast<std::int64_t*>(memory_[table.space.index] + table.offset);
  for (Bytes page = 0; page < each / kPageTableEntryBytes; ++page) entries[page] = page * bytes;
  return &tables_of_.emplace_back(bytes, table).second;
}

RegisteredSpace InflatingDevice::register_space(const SpaceInfo& info) {
  const RegisteredSpace registered = inner_.register_space(info);
  if (registered.status != Status::ok) return registered;
  memory_.resize(std::max(memory_.size(), std::size_t{registered.space.index} + 1));
  memory_[registered.space.index] = info.memory;
  return registered;
}

Submitted InflatingDevice::submit(QueueId queue, std::span<const Op> ops,
                                  std::span<const Ticket> after) {
  if (queues()[queue.index].kind != QueueKind::compute ||
      std::none_of(ops.begin(), ops.end(), is_packed))
    return inner_.submit(queue, ops, after);
  ops_.clear();
  for (auto op = ops.begin(); op != ops.end();) {
    const auto end = std::find_if_not(op, ops.end(), is_packed);
    if (end == op) {
      ops_.push_back(*op++);
    } else if (inflate({op, end})) {
      op = end;
    } else {
      return {Status::rejected, {}};
    }
  }
  return inner_.submit(queue, ops_, after);
}

// Decodes all pages, then makes 16-bit pages of the rows, then attends to them.
bool InflatingDevice::inflate(std::span<const Op> run) {
  std::vector<Op> appends, attends;
  Bytes at = 0;
  const auto take = [&](Bytes bytes) {
    const Address taken{scratch_.space, scratch_.offset + at, bytes};
    at += bytes;
    return taken;
  };
  for (const Op& op : run) {
    Attend attend = std::get<Attend>(op);
    const PageShape packed = attend.shape, shape = sixteen_bit(packed);
    const Tokens pages = divide_up(attend.tokens, packed.tokens);
    const Address* places = table_of(shape);
    if (places == nullptr || pages * kPageTableEntryBytes > places->bytes ||
        at + scratch_bytes(packed, pages) > scratch_.bytes)
      return false;
    const Address inflated = take(pages * page_bytes(shape));
    const std::byte* table = memory_[attend.page_table.space.index] + attend.page_table.offset;
    for (Tokens page = 0; page < pages; ++page) {
      Bytes offset = 0;
      std::memcpy(&offset, table + page * kPageTableEntryBytes, sizeof(offset));
      const Tokens tokens = std::min(packed.tokens, attend.tokens - page * packed.tokens);
      Address rows[2] = {take(rows_bytes(shape)), take(rows_bytes(shape))};
      for (Address& side : rows) side.bytes = tokens * shape.kv_heads * shape.head_dim * 2;
      Decode decode;
      decode.page = {attend.pages.space, attend.pages.offset + offset, page_bytes(packed)};
      decode.keys = rows[0];
      decode.values = rows[1];
      decode.shape = packed;
      decode.tokens = tokens;
      ops_.push_back(decode);
      Append append;
      append.keys = rows[0];
      append.values = rows[1];
      append.page = {inflated.space, inflated.offset + page * page_bytes(shape), page_bytes(shape)};
      append.shape = shape;
      append.tokens = tokens;
      appends.push_back(append);
    }
    inflated_pages_ += pages;
    attend.shape = shape;
    attend.pages = inflated;
    attend.page_table = {places->space, places->offset, pages * kPageTableEntryBytes};
    attends.push_back(attend);
  }
  ops_.insert(ops_.end(), appends.begin(), appends.end());
  ops_.insert(ops_.end(), attends.begin(), attends.end());
  return true;
}

}  // namespace modalkv
