// The kernels behind attend(), one for each kind of processor. A new one is a line in
// attention_targets.cpp.
#pragma once

#include <string_view>

#include "kernels/attention.hpp"

namespace modalkv {

struct AttentionTarget {
  std::string_view name;
  /// See attend(), which is the first of attention_targets().
  void (*attend)(const Queries& queries, const PageList& list, int first_kv_head, int end_kv_head,
                 std::span<float> partials);
};

/// Those that this processor can run, the fastest first. The last is portable.
std::span<const AttentionTarget> attention_targets();

void attend_portable(const Queries& queries, const PageList& list, int first_kv_head,
                     int end_kv_head, std::span<float> partials);
#if defined(__x86_64__)
void attend_avx512(const Queries& queries, const PageList& list, int first_kv_head, int end_kv_head,
                   std::span<float> partials);
void attend_avx2_vnni(const Queries& queries, const PageList& list, int first_kv_head,
                      int end_kv_head, std::span<float> partials);
void attend_avx2(const Queries& queries, const PageList& list, int first_kv_head, int end_kv_head,
                 std::span<float> partials);
#endif

}  // namespace modalkv
