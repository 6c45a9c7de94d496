// NodeArena (offload/node_arena.hpp) on the calling thread alone: a machine that is only to check a
// GPU may lack what it is made of.
#include "offload/node_arena.hpp"

namespace modalkv {

class NodeArena::Impl {};

NodeArena::NodeArena(int) {}
NodeArena::NodeArena(std::span<const int>) {}
NodeArena::~NodeArena() = default;
int NodeArena::threads() const {
  return 1;
}
void NodeArena::run(int calls, const std::function<void()>& work) {
  for (int i = 0; i < calls; ++i) work();
}
std::int64_t NodeArena::unbound() const {
  return 0;
}

}  // namespace modalkv
