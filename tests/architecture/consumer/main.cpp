#include <cstdio>

#include "modalkv/format.hpp"
#include "modalkv/version.hpp"

static_assert(modalkv::token_head_bytes(modalkv::both(modalkv::fp16()), 128) == 512);

int main() {
  const modalkv::Version version = modalkv::library_version();
  std::printf("linked modalkv %d.%d.%d\n", version.major_number, version.minor_number,
              version.patch_number);
  return version == modalkv::kHeaderVersion ? 0 : 1;
}
