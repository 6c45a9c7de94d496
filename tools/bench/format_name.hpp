// Names of KV formats, and mixes of them, as typed on a command line.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "modalkv/format.hpp"

namespace modalkv {

/// Reads `NUMBER[-SUFFIX...]`, for K and V alike, or `K-V`, each of that form:
///
///   fp16 bf16 fp8 nvfp4 mxfp4    as they are
///   int8 int4                    a scale and a zero per token and head, in FP16, unless
///   int2                         per 64 elements of a vector, unless
///     -g32 ... -g4096            per so many elements (a multiple of 16), or with -channel tokens
///     -head                      per token and head
///     -channel                   per channel over the page
///     -symmetric                 without zero
///     -fp8meta                   scale and zero in FP8
///
/// "int8-int4-g32": K is int8, V int4 in groups of 32. Throws Error, one line.
KvFormat parse_kv_format(std::string_view text);

/// "K int4, FP16 scale and zero per 64 elements; V ...", or once where they are alike.
std::string describe(const KvFormat& format);

/// A share of a sequence's tokens in one format.
struct FormatShare {
  std::string name;
  KvFormat format{};
  double share = 1;
};

/// Reads one format, or `FORMAT:SHARE,FORMAT:SHARE,...` whose shares add up to 1. Throws Error.
std::vector<FormatShare> parse_format_mix(std::string_view text);

}  // namespace modalkv
