#include "runtime/c_config.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "scheduler/format_name.hpp"
#include "scheduler/policies.hpp"

namespace modalkv {
namespace {

// -1 says none where 0 says as it is.
template <typename From, typename To>
void set(From given, To& to) {
  if (given != 0) to = static_cast<To>(given == -1 ? 0 : given);
}

PrecisionPolicy policy_named(const char* name) {
  if (auto policy = find_policy(name == nullptr ? "fp16-resident" : name)) return *policy;
  std::vector<std::string> known;
  for (const PrecisionPolicy& policy : builtin_policies()) known.push_back(policy.name);
  throw Error(
      fmt::format("policy '{}' is unknown, expected one of {}", name, fmt::join(known, ", ")));
}

EvictionPolicy eviction_named(std::string_view given) {
  for (const EvictionPolicy policy :
       {EvictionPolicy::lru, EvictionPolicy::tiny_lfu, EvictionPolicy::cost_aware})
    if (name(policy) == given) return policy;
  throw Error(
      fmt::format("content_eviction '{}' is unknown, expected lru, tiny-lfu or cost-aware", given));
}

void set(const char* name, std::optional<KvFormat>& to) {
  using namespace std::string_view_literals;
  if (name == nullptr) return;
  to = name == "none"sv ? std::nullopt : std::optional(parse_kv_format(name));
}

PrecisionPolicy policy_of(const mkv_config& config, NumberFormat input) {
  PrecisionPolicy policy = policy_named(config.policy);
  if (!(config.keep >= 0 && config.keep <= 1))
    throw Error(fmt::format("keep is a share of tokens, from 0 to 1, not {}", config.keep));
  set(config.keep, policy.keep);
  policy.high = config.high == nullptr ? both({input}) : parse_kv_format(config.high);
  set(config.text_low, policy.text_low);
  set(config.visual_low, policy.visual_low);
  constexpr std::uint32_t kPlaces = MKV_RESIDENT | MKV_STREAMED | MKV_ON_CPU;
  if ((config.places & ~kPlaces) != 0)
    throw Error(fmt::format("places are a sum of 1, 2 and 4, not {}", config.places));
  if (config.places != 0)
    policy.places = {(config.places & MKV_RESIDENT) != 0, (config.places & MKV_STREAMED) != 0,
                     (config.places & MKV_ON_CPU) != 0};
  set(config.high_first_layers, policy.high_first_layers);
  set(config.high_last_layers, policy.high_last_layers);
  set(config.pinned_tokens, policy.pinned_tokens);
  set(config.window_tokens, policy.window_tokens);
  return policy;
}

}  // namespace

RuntimeConfig runtime_config(const mkv_config& from) {
  RuntimeConfig config;
  config.layers = from.layers;
  config.query_heads = from.query_heads;
  config.kv_heads = from.kv_heads;
  config.head_dim = from.head_dim;
  if (from.input != MKV_FP16 && from.input != MKV_BF16)
    throw Error(fmt::format("input is MKV_FP16 or MKV_BF16, not {}", from.input));
  config.input = from.input == MKV_BF16 ? NumberFormat::bf16 : NumberFormat::fp16;
  config.logit_scale = from.logit_scale;
  config.window = from.window;
  config.policy = policy_of(from, config.input);
  set(from.device_bytes, config.device_bytes);
  if (from.device_memory != nullptr) {
    if (from.device_bytes < 1) throw Error("device_memory is given, and device_bytes of it is not");
    config.device_memory = {static_cast<std::byte*>(from.device_memory),
                            static_cast<std::size_t>(from.device_bytes)};
  }
  set(from.host_bytes, config.host_bytes);
  set(from.tables_bytes, config.tables_bytes);
  set(from.own_page_tokens, config.own_page_tokens);
  set(from.visual_page_tokens, config.visual_page_tokens);
  set(from.staging_slots, config.staging_slots);
  set(from.staging_slot_bytes, config.staging_slot_bytes);
  set(from.partials_bytes, config.partials_bytes);
  set(from.attention_threads, config.attention_threads);
  if (from.verify_every < -1 || from.verify_every > INT32_MAX)
    throw Error(fmt::format("verify_every is a number of pages or -1, not {}", from.verify_every));
  set(from.verify_every, config.verify_every);
  set(from.overdue_ns, config.overdue_ns);
  set(from.tensor_parallel_ranks, config.tensor_parallel_ranks);
  if (from.content_eviction != nullptr)
    config.content_eviction = eviction_named(from.content_eviction);
  set(from.recompute_token_ns, config.recompute_token_ns);
  if (from.disk_directory != nullptr) config.disk_directory = from.disk_directory;
  if (from.kv_tag != nullptr) config.kv_tag = from.kv_tag;
  set(from.disk_bytes, config.disk_bytes);
  if (from.gpu < 0) throw Error(fmt::format("gpu is 0 or 1 + the GPU's number, not {}", from.gpu));
  if (from.gpu > 0) config.gpu = from.gpu - 1;
  return config;
}

}  // namespace modalkv
