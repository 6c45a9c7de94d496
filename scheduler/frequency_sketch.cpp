#include "scheduler/frequency_sketch.hpp"

#include <algorithm>

#include "scheduler/split_mix.hpp"

namespace modalkv {
std::size_t FrequencySketch::at(std::size_t row, std::uint64_t key) const {
  return row * width_ + (split_mix(key + (row + 1) * 0x9e3779b97f4a7c15u) & (width_ - 1));
}

void FrequencySketch::reserve(std::size_t keys) {
  while (width_ < keys) {
    // A key finds its counter in either half, by one more bit of its hash: both begin as the old.
    std::vector<std::uint8_t> wider;
    wider.reserve(2 * counts_.size());
    for (auto row = counts_.begin(); row != counts_.end();
         row += static_cast<std::ptrdiff_t>(width_))
      for (int half = 0; half < 2; ++half)
        wider.insert(wider.end(), row, row + static_cast<std::ptrdiff_t>(width_));
    counts_ = std::move(wider);
    width_ *= 2;
  }
}

int FrequencySketch::count(std::uint64_t key) const {
  std::uint8_t least = counts_[at(0, key)];
  for (std::size_t row = 1; row < kRows; ++row) least = std::min(least, counts_[at(row, key)]);
  return least;
}

void FrequencySketch::add(std::uint64_t key) {
  const int least = count(key);
  if (least < kMost)
    for (std::size_t row = 0; row < kRows; ++row)
      if (std::uint8_t& counter = counts_[at(row, key)]; counter == least) ++counter;
  if (++additions_ >= kAgingPeriod * static_cast<std::int64_t>(width_)) age();
}

void FrequencySketch::age() {
  for (std::uint8_t& counter : counts_) counter /= 2;
  additions_ /= 2;
  ++agings_;
}

}  // namespace modalkv
