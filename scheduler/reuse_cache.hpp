// Which KV prefixes the host still holds, so that a request that begins alike need not compute them
// again.
//
// An entry is a segment *after everything before it*: its key chains the content ids of the whole
// prefix, all 256 bits of each. Least recently used entries go first; a suffix never outlives its
// prefix, since a hit touches both and leaves the prefix the more recent one.
#pragma once

#include <cstddef>
#include <iterator>
#include <list>
#include <span>
#include <unordered_map>

#include "modalkv/token.hpp"
#include "modalkv/units.hpp"

namespace modalkv {

class ReuseCache {
 public:
  struct Prefix {
    Tokens tokens = 0;
    Tokens visual_tokens = 0;
    int images = 0;
    Bytes bytes = 0;
  };
  /// Stored bytes of a token, by whether it is visual.
  struct TokenBytes {
    Bytes text = 0;
    Bytes visual = 0;
  };

  explicit ReuseCache(const TokenBytes& token_bytes) : token_bytes_(token_bytes) {}

  /// Evicts down to `capacity_bytes`.
  void set_capacity(Bytes capacity_bytes);
  /// The longest cached prefix of `segments`; what it touches becomes recent.
  Prefix find(std::span<const Segment> segments);
  /// Keeps the shareable prefix of `segments`, as far as the capacity allows. Returns the bytes
  /// that were not there yet.
  Bytes insert(std::span<const Segment> segments);

  Bytes used_bytes() const { return used_bytes_; }

 private:
  struct Entry {
    ContentId key;
    Bytes bytes;
  };
  using Entries = std::list<Entry>;
  struct Hash {
    std::size_t operator()(const ContentId& id) const {
      return static_cast<std::size_t>(id.words[0]);
    }
  };

  Bytes bytes_of(const Segment& segment) const;
  /// Where the next segment of a prefix goes: behind `last`, or in front of all (end()).
  Entries::iterator place_behind(Entries::iterator last) {
    return last == recent_.end() ? recent_.begin() : std::next(last);
  }
  void evict_oldest();

  TokenBytes token_bytes_;
  Bytes capacity_bytes_ = 0;
  Bytes used_bytes_ = 0;
  Entries recent_;  // most recent first
  std::unordered_map<ContentId, Entries::iterator, Hash> entries_;
};

}  // namespace modalkv
