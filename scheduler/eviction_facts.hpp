// What an eviction policy knows about a unit.
#pragma once

#include "modalkv/format.hpp"
#include "modalkv/token.hpp"
#include "modalkv/units.hpp"

namespace modalkv {

struct EvictionFacts {
  Bytes bytes = 0;  ///< above 0
  TokenClass token_class = TokenClass::text;
  KvFormat format{};
  /// To bring it back once it has left: from the tier below, or by computing it again. At least 0.
  Nanos reload_ns = 0;
};

}  // namespace modalkv
