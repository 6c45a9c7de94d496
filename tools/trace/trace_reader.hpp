// Reads request traces: four published formats and modalkv's own.
//
//   azure-llm   CSV: TIMESTAMP,ContextTokens,GeneratedTokens (Azure LLM inference 2023, 2024)
//   azure-lmm   CSV: TIMESTAMP,NumImages,ContextTokens,GeneratedTokens (Azure LMM inference 2025)
//   mooncake    JSON lines: timestamp (ms), input_length, output_length, hash_ids (chained blocks
//               of 512 tokens)
//   servegen    JSON lines: timestamp (ms), client, text_length, image_tokens, input_length,
//               output_length
//   modalkv     JSON lines: timestamp (ms), input_length, output_length, and optionally
//               image_tokens (one an image), image_ids (one an image), hash_ids (of the text, as
//               in mooncake)
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "scheduler/request.hpp"

namespace modalkv {

enum class TraceFormat : std::uint8_t { azure_llm, azure_lmm, mooncake, servegen, modalkv };

std::string_view name(TraceFormat format);
/// Throws Error for any other name.
TraceFormat trace_format(std::string_view name);

struct TraceOptions {
  std::optional<TraceFormat> format{};  ///< nothing: told from the first line
  std::int64_t limit = 0;               ///< first requests only; 0: all
  bool skip_bad_rows = false;           ///< leave them out and count them in Trace::skipped_rows
  /// azure-lmm: NumImages looks like the square of the number of images (1, 4, 9, 16 ...).
  bool images_squared = true;
  /// azure-lmm: tokens of an image, at most; a request's images never leave it without text.
  Tokens azure_image_tokens = 576;
};

/// Throws Error, one line, for a file that cannot be read or a row that is wrong: `FILE:LINE: field
/// 'X': found Y, expected Z`. A UTF-8 byte order mark and CRLF line ends are read.
Trace read_trace(const std::filesystem::path& path, const TraceOptions& options);

/// The same for text in memory; `file` names it in errors.
Trace parse_trace(std::string_view text, const TraceOptions& options, std::string_view file);

}  // namespace modalkv
