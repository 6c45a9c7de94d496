// The profile readers. The first byte chooses ('0': a model, '1': hardware); the rest is the JSON.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "modalkv/error.hpp"
#include "tools/profile/profile.hpp"

namespace modalkv {
namespace {

void check(bool holds) {
  if (!holds) std::abort();
}

void check_model(const ModelGeometry& model) {
  check(model.layers > 0 && model.kv_heads > 0 && model.q_heads % model.kv_heads == 0);
  check(model.active_experts <= model.experts);
  for (const double pixels : {0.0, 1.0, 1e6, 1e12}) {
    const Tokens tokens = image_tokens(model.image_rule, pixels);
    check(tokens >= 0 && tokens <= model.image_rule.max_tokens);
  }
}

void check_hardware(const HardwareProfile& hardware) {
  check(hardware.gpu.memory_bytes.value > 0 && !hardware.host.numa_nodes.value.empty());
  check(std::isfinite(hardware.link.h2d_bytes_per_s) && hardware.link.h2d_bytes_per_s > 0);
  Bytes previous = 0;
  for (const LinkPoint& point : hardware.link.piece_table.value) {
    check(point.descriptor_bytes > previous);
    previous = point.descriptor_bytes;
  }
}

}  // namespace
}  // namespace modalkv

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace modalkv;
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    if (data[0] % 2 == 0) {
      check_model(parse_model(text, "fuzz"));
    } else {
      check_hardware(parse_hardware(text, "fuzz"));
    }
  } catch (const Error& error) {
    const std::string_view message = error.what();
    check(message.starts_with("fuzz:") && message.find('\n') == std::string_view::npos);
  }
  return 0;
}
