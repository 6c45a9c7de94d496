// What a trace asks for, in numbers.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "scheduler/request.hpp"

namespace modalkv {

struct Distribution {
  static constexpr std::array kQuantiles{0.0, 0.10, 0.50, 0.90, 0.99, 1.0};
  double mean = 0;
  std::array<double, kQuantiles.size()> quantiles{};
};

struct TraceStats {
  std::int64_t requests = 0;
  double duration_s = 0;
  double rate_per_s = 0;
  double arrival_cv = 0;  ///< of gaps between arrivals
  Distribution prompt_tokens, text_tokens, output_tokens;
  Distribution images, image_tokens;  ///< of requests with images; of images
  double requests_with_images = 0;    ///< share
  double visual_share = 0;            ///< of prompt tokens
  double reusable_share = 0;          ///< of prompt tokens whose whole prefix was seen before
  struct Beyond {
    Tokens context;
    std::int64_t requests;
  };
  std::array<Beyond, 4> beyond{{{4096, 0}, {8192, 0}, {32768, 0}, {131072, 0}}};
};

TraceStats trace_stats(const Trace& trace);
std::string stats_table(const Trace& trace, const TraceStats& stats);
std::string stats_json(const Trace& trace, const TraceStats& stats);

}  // namespace modalkv
