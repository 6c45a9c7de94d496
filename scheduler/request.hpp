// What a trace asks for. Plain values; importers fill them, the batcher and the replay read them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "modalkv/token.hpp"
#include "modalkv/units.hpp"

namespace modalkv {

struct Request {
  Nanos arrival_ns = 0;
  Tokens prompt_tokens = 0;         ///< text and visual, the sum of the segments
  Tokens visual_tokens = 0;         ///< of them
  Tokens output_tokens = 0;         ///< at least 1
  std::int32_t images = 0;          ///< segments of class image or video
  std::uint32_t first_segment = 0;  ///< prompt order, in Trace::segments
  std::uint32_t segment_count = 0;

  friend constexpr bool operator==(const Request&, const Request&) = default;
};

/// Requests by ascending arrival. Visual segments come first in a prompt unless the trace says
/// otherwise, as chat templates put them.
struct Trace {
  std::string name;    ///< file name without its folders
  std::string format;  ///< of the file it came from
  std::vector<Request> requests;
  std::vector<Segment> segments;
  std::int64_t skipped_rows = 0;  ///< bad rows left out on request (--skip-bad-rows)

  std::span<const Segment> segments_of(const Request& request) const {
    return {segments.data() + request.first_segment, request.segment_count};
  }
};

}  // namespace modalkv
