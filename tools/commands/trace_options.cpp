#include "tools/commands/trace_options.hpp"

namespace modalkv {

void add_trace_options(CLI::App& command, TraceArguments& arguments) {
  command
      .add_option("--format", arguments.format,
                  "auto, azure-llm, azure-lmm, mooncake, servegen or modalkv")
      ->capture_default_str();
  command.add_option("--limit", arguments.options.limit, "read the first N requests only")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1'000'000'000}));
  command.add_flag("--skip-bad-rows", arguments.options.skip_bad_rows,
                   "leave out rows that are wrong, and count them");
  command.add_flag("!--images-not-squared", arguments.options.images_squared,
                   "azure-lmm: take NumImages as it is, not as a square");
  command
      .add_option("--azure-image-tokens", arguments.options.azure_image_tokens,
                  "azure-lmm: tokens assumed for an image")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
}

}  // namespace modalkv
