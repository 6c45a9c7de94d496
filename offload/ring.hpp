// A queue of fixed capacity that never allocates after it is made.
#pragma once

#include <cassert>
#include <cstddef>
#include <vector>

namespace modalkv {

template <typename T>
class Ring {
 public:
  explicit Ring(std::size_t capacity) : items_(capacity) {}

  std::size_t size() const { return size_; }
  std::size_t room() const { return items_.size() - size_; }
  bool empty() const { return size_ == 0; }

  /// The i-th oldest. An item keeps its place in memory until it is popped.
  T& operator[](std::size_t i) {
    assert(i < size_);
    return items_[(head_ + i) % items_.size()];
  }
  const T& operator[](std::size_t i) const {
    assert(i < size_);
    return items_[(head_ + i) % items_.size()];
  }
  T& front() { return (*this)[0]; }
  T& back() { return (*this)[size_ - 1]; }

  void push_back(const T& item) {
    assert(room() > 0);
    ++size_;
    back() = item;
  }
  void pop_front(std::size_t count = 1) {
    assert(count <= size_);
    head_ = (head_ + count) % items_.size();
    size_ -= count;
  }

 private:
  std::vector<T> items_;
  std::size_t head_ = 0;
  std::size_t size_ = 0;
};

}  // namespace modalkv
