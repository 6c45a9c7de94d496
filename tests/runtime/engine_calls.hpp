// Calls of an engine that all tests of the linked runtime make alike, to a KvCache or a Runtime.
#pragma once

#include "modalkv/runtime.hpp"

namespace modalkv {

template <typename Cache>
Status append_rows(Cache& cache, SequenceId sequence, int layer, Tokens tokens, const Address& keys,
                   const Address& values) {
  return cache.append({sequence, layer, tokens, keys, values});
}

}  // namespace modalkv
