#include "kernels/effects.hpp"

#include <cstdint>
#include <cstring>

#include "kernels/checksum.hpp"
#include "kernels/page_codec.hpp"

namespace modalkv {
namespace {

class Effects {
 public:
  explicit Effects(SpaceMemory memory) : memory_(memory) {}

  Status operator()(const Copy& copy) const {
    std::memcpy(at(copy.to), at(copy.from), size(copy.to));
    return Status::ok;
  }
  Status operator()(const Fill& fill) const {
    std::memset(at(fill.to), fill.value, size(fill.to));
    return Status::ok;
  }
  Status operator()(const Checksum& sum) const {
    const std::uint64_t value = checksum({at(sum.of), size(sum.of)});
    std::memcpy(at(sum.to), &value, sizeof(value));
    return Status::ok;
  }
  Status operator()(const Verify& verify) const {
    std::uint64_t expected = 0;
    std::memcpy(&expected, at(verify.expected), sizeof(expected));
    return checksum({at(verify.of), size(verify.of)}) == expected ? Status::ok : Status::checksum;
  }
  Status operator()(const Encode& encode) const {
    const PageShape& shape = encode.shape;
    const auto rows = [&](const Address& address) {
      return Rows{reinterpret_cast<const std::uint16_t*>(at(address)),
                  std::int64_t{shape.kv_heads} * shape.head_dim, shape.head_dim, encode.input};
    };
    const PageTrailer trailer{encode.content, encode.generation,
                              static_cast<std::uint32_t>(encode.tokens)};
    return encode_page(shape, rows(encode.keys), rows(encode.values), trailer,
                       {encode.key_scale, encode.value_scale}, {at(encode.page), size(encode.page)})
        .status;
  }
  Status operator()(const Attend&) const { return Status::unsupported; }
  Status operator()(const Merge&) const { return Status::unsupported; }
  Status operator()(const EngineWork&) const { return Status::unsupported; }

 private:
  std::byte* at(const Address& address) const {
    return memory_[address.space.index] + address.offset;
  }
  static std::size_t size(const Address& address) {
    return static_cast<std::size_t>(address.bytes);
  }

  SpaceMemory memory_;
};

}  // namespace

Status perform(const Op& op, SpaceMemory memory) {
  return std::visit(Effects(memory), op);
}

}  // namespace modalkv
