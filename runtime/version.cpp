#include "modalkv/version.hpp"

namespace modalkv {

Version library_version() noexcept {
  return kHeaderVersion;
}

}  // namespace modalkv
