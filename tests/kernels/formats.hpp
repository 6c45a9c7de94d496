// The formats and page shapes that the kernels' tests go through.
#pragma once

#include <fmt/format.h>

#include <string>
#include <vector>

#include "modalkv/page.hpp"

namespace modalkv {

inline ElementFormat symmetric(ElementFormat format) {
  format.zero_bytes = 0;
  return format;
}
inline ElementFormat small_metadata(ElementFormat format) {
  format.scale_bytes = 1;
  format.zero_bytes = format.zero_bytes > 0 ? 1 : 0;
  return format;
}
inline ElementFormat per_channel(ElementFormat format, int tokens = 0) {
  format.per_channel = true;
  format.group = tokens;
  return format;
}

inline std::vector<ElementFormat> test_formats() {
  std::vector<ElementFormat> all{fp16(), bf16(), fp8_e4m3(), nvfp4(), mxfp4()};
  std::vector<ElementFormat> integers{int8_token_head(), int4_token_head()};
  for (const int group : {32, 64, 128}) {
    integers.push_back(int4_grouped(group));
    integers.push_back(int2_grouped(group));
    ElementFormat int8 = int8_token_head();
    int8.group = group;
    integers.push_back(int8);
  }
  for (const ElementFormat& format : integers)
    for (const ElementFormat& each :
         {format, symmetric(format), small_metadata(format), small_metadata(symmetric(format))})
      all.push_back(each);
  for (const ElementFormat& format : {int8_token_head(), int4_token_head(), int2_grouped(0)})
    for (const int tokens : {0, 16, 32}) {
      all.push_back(per_channel(format, tokens));
      all.push_back(symmetric(per_channel(format, tokens)));
    }
  return all;
}

inline std::string describe(const ElementFormat& format) {
  return fmt::format("{} group {} scale {} zero {}{}", name(format.number), format.group,
                     format.scale_bytes, format.zero_bytes,
                     format.per_channel ? " per channel" : "");
}

inline std::string describe(const PageShape& shape) {
  return fmt::format("{} tokens, {} heads of {}, K {}, V {}", shape.tokens, shape.kv_heads,
                     shape.head_dim, describe(shape.format.key), describe(shape.format.value));
}

/// Every format on both sides, then each beside its neighbour in the list on shapes of every kind.
inline std::vector<PageShape> test_shapes() {
  std::vector<PageShape> all;
  const std::vector<ElementFormat> formats = test_formats();
  const int dims[] = {64, 80, 96, 128, 256};
  const Tokens tokens[] = {16, 64, 32, 48};
  for (std::size_t i = 0; i < formats.size(); ++i) {
    all.push_back({32, 2, 128, both(formats[i])});
    all.push_back({tokens[i % 4],
                   1 + static_cast<int>(i % 3),
                   dims[i % 5],
                   {formats[i], formats[(i + 1) % formats.size()]}});
  }
  return all;
}

}  // namespace modalkv
