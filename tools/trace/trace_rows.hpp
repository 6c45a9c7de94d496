// One row of each trace format. A row parser fills a request and its segments, or throws RowError.
#pragma once

#include <string_view>
#include <vector>

#include "scheduler/request.hpp"
#include "tools/trace/trace_reader.hpp"

namespace modalkv {

struct TraceRow {
  Nanos clock_ns = 0;  ///< by the file's own clock
  Tokens output_tokens = 0;
  std::vector<Segment> segments;  ///< prompt order; reused from row to row
};

inline constexpr std::string_view kAzureLlmHeader = "TIMESTAMP,ContextTokens,GeneratedTokens";
inline constexpr std::string_view kAzureLmmHeader =
    "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens";

void parse_azure_row(std::string_view line, const TraceOptions& options, bool with_images,
                     TraceRow& row);
void parse_mooncake_row(std::string_view line, TraceRow& row);
void parse_servegen_row(std::string_view line, TraceRow& row);
void parse_modalkv_row(std::string_view line, TraceRow& row);

}  // namespace modalkv
