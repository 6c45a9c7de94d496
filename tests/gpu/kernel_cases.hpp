// Operations for a GPU to perform, with what they read: each kind, in the shapes that models have.
#pragma once

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "modalkv/op.hpp"

namespace modalkv {

/// Memory of one space, and operations on it, in SpaceId 0.
struct KernelCase {
  std::string name;
  std::vector<std::byte> memory;
  std::vector<Op> ops;
  /// 16-bit outputs that may differ by rounding, within `kLooseShare` of the largest.
  std::vector<Address> loose_fp16{};
  /// Likewise 32-bit floats.
  std::vector<Address> loose_f32{};
  /// Work in between: nobody compares it.
  std::vector<Address> ignored{};
};

/// Of the largest output: what arithmetic in other orders and in 16-bit operands may differ by.
inline constexpr float kLooseShare = 0.02f;

/// `small`: those that a sanitizer gets through in minutes.
std::vector<KernelCase> kernel_cases(bool small);

}  // namespace modalkv
