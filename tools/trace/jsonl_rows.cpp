#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tools/trace/content_id.hpp"
#include "tools/trace/json_line.hpp"
#include "tools/trace/row_error.hpp"
#include "tools/trace/trace_rows.hpp"

namespace modalkv {
namespace {

constexpr Tokens kHashBlockTokens = 512;

/// The fields that the three JSON formats have between them.
struct Fields {
  std::optional<long double> timestamp_ms;
  std::optional<Tokens> input_length, output_length, text_length;
  std::vector<Tokens> image_tokens;
  std::vector<ContentId> image_ids, hash_ids;
  bool has_image_tokens = false, has_image_ids = false, has_hash_ids = false;
};

template <typename T>
void set_once(std::optional<T>& field, T value, std::string_view key) {
  if (field) throw RowError(key, "it twice", "it once");
  field = value;
}

void begin_once(JsonLine& line, bool& seen, std::string_view key) {
  if (std::exchange(seen, true)) throw RowError(key, "it twice", "it once");
  line.begin_array(key);
}

std::vector<ContentId> ids(JsonLine& line, std::string_view key) {
  std::vector<ContentId> result;
  while (line.next_element(key))
    result.push_back(line.at_string()
                         ? content_id(line.string(key))
                         : content_id(static_cast<std::uint64_t>(line.integer(key, 0, INT64_MAX))));
  return result;
}

Fields read_fields(std::string_view text, bool foreign_keys_allowed) {
  Fields fields;
  JsonLine line(text);
  std::string key;
  while (line.next_key(key)) {
    if (key == "timestamp") {
      set_once(fields.timestamp_ms, line.number(key, 0, 1e3 * kLongestTraceSeconds), key);
    } else if (key == "input_length") {
      set_once(fields.input_length, line.integer(key, 1, kMostTraceTokens), key);
    } else if (key == "output_length") {
      set_once(fields.output_length, line.integer(key, 1, kMostTraceTokens), key);
    } else if (key == "text_length") {
      set_once(fields.text_length, line.integer(key, 0, kMostTraceTokens), key);
    } else if (key == "image_tokens") {
      begin_once(line, fields.has_image_tokens, key);
      while (line.next_element(key))
        fields.image_tokens.push_back(line.integer(key, 1, kMostTraceTokens));
    } else if (key == "image_ids") {
      begin_once(line, fields.has_image_ids, key);
      fields.image_ids = ids(line, key);
    } else if (key == "hash_ids") {
      begin_once(line, fields.has_hash_ids, key);
      fields.hash_ids = ids(line, key);
    } else if (foreign_keys_allowed) {
      line.skip();
    } else {
      throw RowError(key, "an unknown field",
                     "timestamp, input_length, output_length, image_tokens, image_ids or hash_ids");
    }
  }
  if (!fields.timestamp_ms) throw RowError("timestamp", "", "milliseconds");
  if (!fields.input_length) throw RowError("input_length", "", "the prompt's tokens");
  if (!fields.output_length) throw RowError("output_length", "", "the output's tokens");
  return fields;
}

void add_text(const Fields& fields, Tokens text, TraceRow& row) {
  if (fields.hash_ids.empty()) {
    if (text > 0) row.segments.push_back({.token_class = TokenClass::text, .tokens = text});
    return;
  }
  const auto blocks = static_cast<Tokens>(fields.hash_ids.size());
  if (blocks != divide_up(text, kHashBlockTokens))
    throw RowError("hash_ids", fmt::format("{} blocks", blocks),
                   fmt::format("{} for {} tokens", divide_up(text, kHashBlockTokens), text));
  for (Tokens block = 0; block < blocks; ++block)
    row.segments.push_back({.token_class = TokenClass::text,
                            .tokens = std::min(kHashBlockTokens, text - block * kHashBlockTokens),
                            .content = fields.hash_ids[static_cast<std::size_t>(block)]});
}

Tokens sum(const std::vector<Tokens>& tokens) {
  Tokens total = 0;
  for (const Tokens count : tokens) total += count;
  return total;
}

void fill(const Fields& fields, Tokens text, TraceRow& row) {
  if (fields.has_image_ids && fields.image_ids.size() != fields.image_tokens.size())
    throw RowError("image_ids", fmt::format("{} ids", fields.image_ids.size()),
                   fmt::format("one for each of {} images", fields.image_tokens.size()));
  row.clock_ns = std::llround(*fields.timestamp_ms * kMillisecond);
  row.output_tokens = *fields.output_length;
  row.segments.clear();
  for (std::size_t i = 0; i < fields.image_tokens.size(); ++i)
    row.segments.push_back({.token_class = TokenClass::image,
                            .tokens = fields.image_tokens[i],
                            .content = fields.has_image_ids ? fields.image_ids[i] : ContentId{}});
  add_text(fields, text, row);
}

}  // namespace

void parse_mooncake_row(std::string_view line, TraceRow& row) {
  const Fields fields = read_fields(line, true);
  if (fields.has_image_tokens || fields.has_image_ids)
    throw RowError("image_tokens", "images", "none: mooncake has no images, but modalkv's own has");
  fill(fields, *fields.input_length, row);
}

void parse_servegen_row(std::string_view line, TraceRow& row) {
  const Fields fields = read_fields(line, true);
  if (!fields.text_length) throw RowError("text_length", "", "the text tokens of the prompt");
  const Tokens total = *fields.text_length + sum(fields.image_tokens);
  if (total != *fields.input_length)
    throw RowError("input_length", fmt::format("{}", *fields.input_length),
                   fmt::format("text_length + image_tokens = {}", total));
  fill(fields, *fields.text_length, row);
}

void parse_modalkv_row(std::string_view line, TraceRow& row) {
  const Fields fields = read_fields(line, false);
  const Tokens text = *fields.input_length - sum(fields.image_tokens);
  if (text < 0)
    throw RowError("image_tokens", fmt::format("{} in all", sum(fields.image_tokens)),
                   fmt::format("at most input_length, {}", *fields.input_length));
  fill(fields, text, row);
}

}  // namespace modalkv
