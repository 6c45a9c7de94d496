// Whether an operation can be performed at all, before anything of it is taken over.
#pragma once

#include <span>
#include <string>

#include "modalkv/op.hpp"

namespace modalkv {

/// What is wrong with `op`, given the bytes of each space; empty where nothing is.
std::string why_malformed(const Op& op, std::span<const Bytes> space_bytes);

}  // namespace modalkv
