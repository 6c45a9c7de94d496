// Names of KV formats, as typed on a command line or given by an engine.
#pragma once

#include <string>
#include <string_view>

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

}  // namespace modalkv
