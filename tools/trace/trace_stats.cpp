#include "tools/trace/trace_stats.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "scheduler/reuse_cache.hpp"
#include "tools/report/text_table.hpp"

namespace modalkv {
namespace {

Distribution distribution(std::vector<double> values) {
  Distribution result;
  if (values.empty()) return result;
  std::sort(values.begin(), values.end());
  for (const double value : values) result.mean += value / static_cast<double>(values.size());
  for (std::size_t q = 0; q < result.quantiles.size(); ++q)
    result.quantiles[q] = values[static_cast<std::size_t>(Distribution::kQuantiles[q] *
                                                          static_cast<double>(values.size() - 1))];
  return result;
}

std::string quantile_title(double quantile) {
  if (quantile == 0) return "least";
  if (quantile == 1) return "most";
  return fmt::format("p{:.0f}", 100 * quantile);
}

double coefficient_of_variation(const std::vector<double>& values) {
  double sum = 0, squares = 0;
  for (const double value : values) {
    sum += value;
    squares += value * value;
  }
  const auto n = static_cast<double>(values.size());
  return sum > 0 ? std::sqrt(std::max(0.0, squares / n - sum * sum / n / n)) / (sum / n) : 0;
}

}  // namespace

TraceStats trace_stats(const Trace& trace) {
  TraceStats stats;
  std::vector<double> prompt, text, output, images, image_tokens, gaps;
  ReuseCache seen({.text = 1, .visual = 1});
  seen.set_capacity(INT64_MAX);
  Tokens all = 0, visual = 0, reusable = 0;
  std::optional<Nanos> previous_ns;
  for (const Request& request : trace.requests) {
    const auto segments = trace.segments_of(request);
    prompt.push_back(static_cast<double>(request.prompt_tokens));
    text.push_back(static_cast<double>(request.prompt_tokens - request.visual_tokens));
    output.push_back(static_cast<double>(request.output_tokens));
    if (request.images > 0) images.push_back(request.images);
    for (const Segment& segment : segments)
      if (is_visual(segment.token_class))
        image_tokens.push_back(static_cast<double>(segment.tokens));
    if (previous_ns) gaps.push_back(static_cast<double>(request.arrival_ns - *previous_ns));
    previous_ns = request.arrival_ns;
    all += request.prompt_tokens;
    visual += request.visual_tokens;
    reusable += seen.find(segments).tokens;
    seen.insert(segments);
    for (auto& beyond : stats.beyond)
      beyond.requests += request.prompt_tokens + request.output_tokens > beyond.context;
  }
  stats.requests = static_cast<std::int64_t>(trace.requests.size());
  const Nanos span_ns = trace.requests.back().arrival_ns - trace.requests.front().arrival_ns;
  stats.duration_s = static_cast<double>(span_ns) / 1e9;
  stats.rate_per_s = span_ns > 0 ? static_cast<double>(stats.requests - 1) / stats.duration_s : 0;
  stats.arrival_cv = coefficient_of_variation(gaps);
  stats.requests_with_images =
      static_cast<double>(images.size()) / static_cast<double>(stats.requests);
  stats.visual_share = static_cast<double>(visual) / static_cast<double>(all);
  stats.reusable_share = static_cast<double>(reusable) / static_cast<double>(all);
  stats.prompt_tokens = distribution(std::move(prompt));
  stats.text_tokens = distribution(std::move(text));
  stats.output_tokens = distribution(std::move(output));
  stats.images = distribution(std::move(images));
  stats.image_tokens = distribution(std::move(image_tokens));
  return stats;
}

std::string stats_table(const Trace& trace, const TraceStats& stats) {
  std::string out = fmt::format("{} ({}): {} requests in {:.1f} s, {:.2f}/s, CV of gaps {:.2f}\n",
                                trace.name, trace.format, stats.requests, stats.duration_s,
                                stats.rate_per_s, stats.arrival_cv);
  if (trace.skipped_rows > 0) out += fmt::format("{} bad rows were left out\n", trace.skipped_rows);
  std::vector<TextTable::Column> columns{{"", TextTable::Align::left}, {"mean"}};
  for (const double quantile : Distribution::kQuantiles)
    columns.push_back({quantile_title(quantile)});
  TextTable table(columns);
  const auto add = [&](std::string title, const Distribution& values) {
    std::vector<std::string> cells{std::move(title), fmt::format("{:.1f}", values.mean)};
    for (const double value : values.quantiles) cells.push_back(fmt::format("{:.0f}", value));
    table.add_row(cells);
  };
  add("prompt tokens", stats.prompt_tokens);
  add("text tokens", stats.text_tokens);
  add("output tokens", stats.output_tokens);
  add("images of an image request", stats.images);
  add("tokens of an image", stats.image_tokens);
  out += "\n" + table.str() + "\n";
  out +=
      fmt::format("requests with images: {:.1f} %; image tokens: {:.1f} % of all prompt tokens\n",
                  100 * stats.requests_with_images, 100 * stats.visual_share);
  out += fmt::format("prompt tokens whose whole prefix was seen before: {:.1f} %\n",
                     100 * stats.reusable_share);
  for (const auto& beyond : stats.beyond)
    out += fmt::format("beyond a context of {:>6}: {} requests\n", beyond.context, beyond.requests);
  return out;
}

std::string stats_json(const Trace& trace, const TraceStats& stats) {
  nlohmann::ordered_json json{{"schema_version", 1},
                              {"name", trace.name},
                              {"format", trace.format},
                              {"requests", stats.requests},
                              {"skipped_rows", trace.skipped_rows},
                              {"duration_s", stats.duration_s},
                              {"rate_per_s", stats.rate_per_s},
                              {"arrival_cv", stats.arrival_cv}};
  const auto add = [&](const char* key, const Distribution& values) {
    json[key] = {{"mean", values.mean}};
    for (std::size_t q = 0; q < values.quantiles.size(); ++q)
      json[key][fmt::format("p{:g}", 100 * Distribution::kQuantiles[q])] = values.quantiles[q];
  };
  add("prompt_tokens", stats.prompt_tokens);
  add("text_tokens", stats.text_tokens);
  add("output_tokens", stats.output_tokens);
  add("images", stats.images);
  add("image_tokens", stats.image_tokens);
  json["requests_with_images_share"] = stats.requests_with_images;
  json["image_token_share"] = stats.visual_share;
  json["reusable_token_share"] = stats.reusable_share;
  for (const auto& beyond : stats.beyond)
    json["requests_beyond_context"][fmt::format("{}", beyond.context)] = beyond.requests;
  return json.dump(2) + "\n";
}

}  // namespace modalkv
