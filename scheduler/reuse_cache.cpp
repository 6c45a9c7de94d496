#include "scheduler/reuse_cache.hpp"

#include "scheduler/split_mix.hpp"

namespace modalkv {
namespace {

// Key of `id` behind `prefix`: every word depends on all words of both.
ContentId chained(const ContentId& prefix, const ContentId& id) {
  std::uint64_t all = 0x9e3779b97f4a7c15u;
  for (const std::uint64_t word : prefix.words) all = split_mix(all ^ word) + 0x9e3779b97f4a7c15u;
  for (const std::uint64_t word : id.words) all = split_mix(all ^ word) + 0x9e3779b97f4a7c15u;
  ContentId key;
  for (std::size_t i = 0; i < key.words.size(); ++i)
    key.words[i] = split_mix(split_mix(prefix.words[i] + all * (2 * i + 1)) ^ (id.words[i] + i));
  return key;
}

}  // namespace

Bytes ReuseCache::bytes_of(const Segment& segment) const {
  return segment.tokens *
         (is_visual(segment.token_class) ? token_bytes_.visual : token_bytes_.text);
}

void ReuseCache::evict_oldest() {
  used_bytes_ -= recent_.back().bytes;
  entries_.erase(recent_.back().key);
  recent_.pop_back();
}

void ReuseCache::set_capacity(Bytes capacity_bytes) {
  capacity_bytes_ = capacity_bytes;
  while (used_bytes_ > capacity_bytes_ && !recent_.empty()) evict_oldest();
}

ReuseCache::Prefix ReuseCache::find(std::span<const Segment> segments) {
  Prefix prefix;
  ContentId key{};
  auto last = recent_.end();
  for (const Segment& segment : segments) {
    if (segment.content.is_unique()) break;
    key = chained(key, segment.content);
    const auto found = entries_.find(key);
    if (found == entries_.end()) break;
    recent_.splice(place_behind(last), recent_, found->second);
    last = found->second;
    prefix.tokens += segment.tokens;
    prefix.bytes += found->second->bytes;
    if (!is_visual(segment.token_class)) continue;
    prefix.visual_tokens += segment.tokens;
    ++prefix.images;
  }
  return prefix;
}

Bytes ReuseCache::insert(std::span<const Segment> segments) {
  Bytes added = 0, prefix_bytes = 0;
  ContentId key{};
  auto last = recent_.end();
  for (const Segment& segment : segments) {
    if (segment.content.is_unique()) break;
    key = chained(key, segment.content);
    const Bytes bytes = bytes_of(segment);
    prefix_bytes += bytes;
    // Room is made from what is older than this very prefix, never from the prefix itself.
    if (prefix_bytes > capacity_bytes_) break;
    const auto found = entries_.find(key);
    if (found != entries_.end()) {
      recent_.splice(place_behind(last), recent_, found->second);
      last = found->second;
      continue;
    }
    while (used_bytes_ + bytes > capacity_bytes_) evict_oldest();
    last = recent_.insert(place_behind(last), {key, bytes});
    entries_.emplace(key, last);
    used_bytes_ += bytes;
    added += bytes;
  }
  return added;
}

}  // namespace modalkv
