#include "kernels/attention_targets.hpp"

#include <array>

#include "kernels/processor.hpp"

namespace modalkv {
namespace {

struct Choice {
  std::array<AttentionTarget, 4> targets;
  std::size_t count = 0;
};

Choice choose() {
  Choice choice;
  [[maybe_unused]] const auto add = [&](AttentionTarget target) {
    choice.targets[choice.count++] = target;
  };
#if defined(__x86_64__)
  if (has_avx512() && __builtin_cpu_supports("avx512vnni")) add({"avx512-vnni", attend_avx512});
  if (has_avx2() && __builtin_cpu_supports("fma")) {
    if (has_avx_vnni()) add({"avx2-vnni", attend_avx2_vnni});
    add({"avx2", attend_avx2});
  }
#endif
  add({"portable", attend_portable});
  return choice;
}

}  // namespace

std::span<const AttentionTarget> attention_targets() {
  static const Choice choice = choose();
  return {choice.targets.data(), choice.count};
}

void attend(const Queries& queries, const PageList& list, int first_kv_head, int end_kv_head,
            std::span<float> partials) {
  attention_targets().front().attend(queries, list, first_kv_head, end_kv_head, partials);
}

std::string_view attention_target() {
  return attention_targets().front().name;
}

}  // namespace modalkv
