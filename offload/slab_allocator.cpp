#include "offload/slab_allocator.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <limits>

#include "modalkv/error.hpp"

namespace modalkv {
namespace {

constexpr Bytes kGrain = 64;
constexpr std::size_t kMaxClasses = 16;
constexpr std::int32_t kWordBits = 64;

[[noreturn]] void bug(const std::string& what) {
  std::fputs(fmt::format("modalkv: bug: slab allocator: {}\n", what).c_str(), stderr);
  std::abort();
}

// Bits [first, first + count) of a bitmap.
template <typename Function>
void for_each_word(std::int32_t first, std::int32_t count, Function&& function) {
  while (count > 0) {
    const std::int32_t bit = first % kWordBits, bits = std::min(count, kWordBits - bit);
    const std::uint64_t mask = (~std::uint64_t{0} >> (kWordBits - bits)) << bit;
    function(static_cast<std::size_t>(first / kWordBits), mask);
    first += bits;
    count -= bits;
  }
}

// The first bit from `from` on that is `set`; `end` where none is.
std::int32_t find_bit(std::span<const std::uint64_t> words, std::int32_t from, std::int32_t end,
                      bool set) {
  while (from < end) {
    const std::uint64_t word = words[static_cast<std::size_t>(from / kWordBits)];
    const std::uint64_t rest = (set ? word : ~word) >> (from % kWordBits);
    if (rest != 0) return std::min(end, from + std::countr_zero(rest));
    from = (from / kWordBits + 1) * kWordBits;
  }
  return end;
}

}  // namespace

Bytes slab_bytes_for(std::span<const Bytes> page_bytes) {
  constexpr Bytes step = 2 * kMiB;
  for (Bytes slab = step;; slab += step)
    if (std::all_of(page_bytes.begin(), page_bytes.end(),
                    [&](Bytes page) { return page <= slab && slab % page <= slab / 16; }))
      return slab;
}

Bytes SlabStatistics::used_bytes() const {
  Bytes bytes = 0;
  for (const SizeClass& c : classes) bytes += c.used_pages * c.page_bytes;
  return bytes;
}

Bytes SlabStatistics::stranded_bytes() const {
  Bytes bytes = 0;
  for (const SizeClass& c : classes) bytes += c.free_pages() * c.page_bytes;
  return bytes;
}

double SlabStatistics::fragmentation() const {
  const Bytes held = capacity_bytes - free_bytes();
  return held == 0 ? 0 : 1 - static_cast<double>(used_bytes()) / static_cast<double>(held);
}

SlabAllocator::SlabAllocator(std::vector<Bytes> page_bytes, Bytes slab_bytes, Bytes max_bytes,
                             int lanes)
    : slab_bytes_(slab_bytes), max_bytes_(max_bytes), lanes_(lanes) {
  std::sort(page_bytes.begin(), page_bytes.end());
  if (page_bytes.empty() || page_bytes.size() > kMaxClasses ||
      std::adjacent_find(page_bytes.begin(), page_bytes.end()) != page_bytes.end())
    throw Error(fmt::format("page sizes: 1 to {} distinct ones are expected, found {{{}}}",
                            kMaxClasses, fmt::join(page_bytes, ", ")));
  if (lanes < 1) throw Error(fmt::format("{} lanes of pages make no sense", lanes));
  if (slab_bytes <= 0 || slab_bytes % kGrain != 0 ||
      slab_bytes / kGrain > std::numeric_limits<std::int32_t>::max())
    throw Error(
        fmt::format("slab size {} B: a positive multiple of {} B is expected", slab_bytes, kGrain));
  for (const Bytes bytes : page_bytes) {
    if (bytes <= 0 || bytes % kGrain != 0 || bytes > slab_bytes)
      throw Error(
          fmt::format("page size {} B: a multiple of {} B up to the slab's {} B is expected", bytes,
                      kGrain, slab_bytes));
    SizeClass made;
    made.page_bytes = bytes;
    made.pages_per_slab = static_cast<std::int32_t>(slab_bytes / bytes);
    made.heads.fill(kNone);
    classes_.insert(classes_.end(), static_cast<std::size_t>(lanes), made);
  }
  if (max_bytes < 0 || max_bytes / slab_bytes > std::numeric_limits<std::int32_t>::max())
    throw Error(fmt::format("space of {} B: too many slabs of {} B", max_bytes, slab_bytes));
  words_per_slab_ = static_cast<std::size_t>(divide_up(classes_.front().pages_per_slab, kWordBits));
  const auto slabs = static_cast<std::size_t>(max_bytes / slab_bytes);
  slabs_.reserve(slabs);
  free_bits_.reserve(slabs * words_per_slab_);
}

void SlabAllocator::grow(Bytes capacity_bytes) {
  if (capacity_bytes > max_bytes_)
    bug(fmt::format("grown to {} B, above the {} B stated first", capacity_bytes, max_bytes_));
  const auto begin = static_cast<std::int32_t>(slabs_.size());
  const auto end = std::max(begin, static_cast<std::int32_t>(capacity_bytes / slab_bytes_));
  slabs_.resize(static_cast<std::size_t>(end));
  free_bits_.resize(slabs_.size() * words_per_slab_);
  for (std::int32_t slab = end - 1; slab >= begin; --slab) give_back(slab);
}

std::optional<Bytes> SlabAllocator::allocate(Bytes page_bytes, int lane) {
  Bytes offset = 0;
  if (!allocate(page_bytes, {&offset, 1}, lane)) return std::nullopt;
  return offset;
}

bool SlabAllocator::allocate(Bytes page_bytes, std::span<Bytes> offsets, int lane) {
  const std::int32_t index = class_of(page_bytes, lane);
  SizeClass& of = classes_[static_cast<std::size_t>(index)];
  auto wanted = static_cast<std::int64_t>(offsets.size());
  if ((of.slabs + free_slabs_) * of.pages_per_slab - of.used_pages < wanted) return false;
  of.used_pages += wanted;
  of.most_used_pages = std::max(of.most_used_pages, of.used_pages);
  Bytes* next = offsets.data();
  while (wanted > 0) {
    const std::int32_t slab = slab_for(index, wanted);
    const Run run = best_run(
        slab, static_cast<std::int32_t>(std::min<std::int64_t>(wanted, of.pages_per_slab)));
    const std::span bits = free_bits(slab);
    for_each_word(run.first, run.pages,
                  [&](std::size_t w, std::uint64_t mask) { bits[w] &= ~mask; });
    unlist(slab);
    slabs_[static_cast<std::size_t>(slab)].free_pages -= run.pages;
    list(slab);
    for (std::int32_t page = run.first; page < run.first + run.pages; ++page)
      *next++ = slab * slab_bytes_ + page * page_bytes;
    wanted -= run.pages;
  }
  return true;
}

void SlabAllocator::release(Bytes offset) {
  if (offset < 0 || offset / slab_bytes_ >= static_cast<Bytes>(slabs_.size()))
    bug(fmt::format("offset {} released, the space has {} slabs of {} B", offset, slabs_.size(),
                    slab_bytes_));
  const auto index = static_cast<std::int32_t>(offset / slab_bytes_);
  Slab& slab = slabs_[static_cast<std::size_t>(index)];
  if (slab.size_class == kNone) bug(fmt::format("offset {} released, its slab is free", offset));
  SizeClass& of = classes_[static_cast<std::size_t>(slab.size_class)];
  const Bytes in_slab = offset % slab_bytes_;
  const auto page = static_cast<std::int32_t>(in_slab / of.page_bytes);
  if (in_slab % of.page_bytes != 0 || page >= of.pages_per_slab)
    bug(fmt::format("offset {} released, no page of {} B begins there", offset, of.page_bytes));
  std::uint64_t& word = free_bits(index)[static_cast<std::size_t>(page / kWordBits)];
  const std::uint64_t bit = std::uint64_t{1} << (page % kWordBits);
  if ((word & bit) != 0) bug(fmt::format("offset {} released twice", offset));
  word |= bit;
  --of.used_pages;
  unlist(index);
  if (++slab.free_pages < of.pages_per_slab) {
    list(index);
  } else {
    --of.slabs;
    give_back(index);
  }
}

SlabStatistics SlabAllocator::statistics() const {
  SlabStatistics statistics{.slab_bytes = slab_bytes_,
                            .capacity_bytes = static_cast<Bytes>(slabs_.size()) * slab_bytes_,
                            .free_slabs = free_slabs_,
                            .classes = {}};
  for (const SizeClass& c : classes_)
    statistics.classes.push_back(
        {c.page_bytes, c.pages_per_slab, c.slabs, c.used_pages, c.most_used_pages});
  return statistics;
}

std::int32_t SlabAllocator::class_of(Bytes page_bytes, int lane) const {
  const auto step = static_cast<std::size_t>(lanes_);
  if (lane < 0 || lane >= lanes_) bug(fmt::format("lane {} of {}", lane, lanes_));
  for (std::size_t i = 0; i < classes_.size(); i += step)
    if (classes_[i].page_bytes == page_bytes) return static_cast<std::int32_t>(i) + lane;
  bug(fmt::format("no class has pages of {} B", page_bytes));
}

std::span<std::uint64_t> SlabAllocator::free_bits(std::int32_t slab) {
  return std::span(free_bits_)
      .subspan(static_cast<std::size_t>(slab) * words_per_slab_, words_per_slab_);
}

// The fullest slab that is sure to have `pages` free, so that the emptier ones drain; else the
// emptiest; else a new one.
std::int32_t SlabAllocator::slab_for(std::int32_t size_class, std::int64_t pages) {
  const SizeClass& of = classes_[static_cast<std::size_t>(size_class)];
  if (of.occupied_lists == 0) return take_free_slab(size_class);
  const auto enough = std::bit_width(static_cast<std::uint64_t>(pages - 1));
  const std::uint32_t fit = enough < kLists ? of.occupied_lists >> enough << enough : 0;
  const int found = fit != 0 ? std::countr_zero(fit) : std::bit_width(of.occupied_lists) - 1;
  return of.heads[static_cast<std::size_t>(found)];
}

std::int32_t SlabAllocator::take_free_slab(std::int32_t size_class) {
  const std::int32_t index = first_free_;
  Slab& slab = slabs_[static_cast<std::size_t>(index)];
  first_free_ = slab.next;
  --free_slabs_;
  SizeClass& of = classes_[static_cast<std::size_t>(size_class)];
  ++of.slabs;
  slab = {.free_pages = of.pages_per_slab, .size_class = size_class};
  const std::span bits = free_bits(index);
  for_each_word(0, of.pages_per_slab, [&](std::size_t w, std::uint64_t mask) { bits[w] = mask; });
  list(index);
  return index;
}

void SlabAllocator::give_back(std::int32_t slab) {
  slabs_[static_cast<std::size_t>(slab)] = {.next = first_free_};
  first_free_ = slab;
  ++free_slabs_;
}

// The shortest run of free pages that has `pages`, else the longest.
SlabAllocator::Run SlabAllocator::best_run(std::int32_t slab, std::int32_t pages) {
  const Slab& in = slabs_[static_cast<std::size_t>(slab)];
  const std::int32_t end = classes_[static_cast<std::size_t>(in.size_class)].pages_per_slab;
  const std::span bits = free_bits(slab);
  Run best;
  for (std::int32_t first = find_bit(bits, 0, end, true); first < end;) {
    const std::int32_t last = find_bit(bits, first, end, false);
    const Run run{first, last - first};
    if (best.pages < pages ? run.pages > best.pages : run.pages >= pages && run.pages < best.pages)
      best = run;
    if (best.pages == pages) break;
    first = find_bit(bits, last, end, true);
  }
  best.pages = std::min(best.pages, pages);
  return best;
}

// Full slabs are on no list.
void SlabAllocator::list(std::int32_t slab) {
  Slab& listed = slabs_[static_cast<std::size_t>(slab)];
  if (listed.free_pages == 0) return;
  SizeClass& of = classes_[static_cast<std::size_t>(listed.size_class)];
  const int log = std::bit_width(static_cast<std::uint32_t>(listed.free_pages)) - 1;
  std::int32_t& head = of.heads[static_cast<std::size_t>(log)];
  listed.previous = kNone;
  listed.next = head;
  if (head != kNone) slabs_[static_cast<std::size_t>(head)].previous = slab;
  head = slab;
  of.occupied_lists |= std::uint32_t{1} << log;
}

void SlabAllocator::unlist(std::int32_t slab) {
  const Slab& listed = slabs_[static_cast<std::size_t>(slab)];
  if (listed.free_pages == 0) return;
  SizeClass& of = classes_[static_cast<std::size_t>(listed.size_class)];
  const int log = std::bit_width(static_cast<std::uint32_t>(listed.free_pages)) - 1;
  if (listed.next != kNone)
    slabs_[static_cast<std::size_t>(listed.next)].previous = listed.previous;
  if (listed.previous != kNone) {
    slabs_[static_cast<std::size_t>(listed.previous)].next = listed.next;
    return;
  }
  of.heads[static_cast<std::size_t>(log)] = listed.next;
  if (listed.next == kNone) of.occupied_lists &= ~(std::uint32_t{1} << log);
}

}  // namespace modalkv
