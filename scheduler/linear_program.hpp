// A small dense linear program: minimize c x subject to rows and x >= 0. Two-phase tableau simplex.
// Meant for tens of variables; a caller scales its numbers to the order of one.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

namespace modalkv {

class LinearProgram {
 public:
  enum class Sense { at_most, equal, at_least };

  struct Solution {
    std::vector<double> values;
    double objective = 0;
  };

  explicit LinearProgram(std::size_t variables) : objective_(variables) {}
  void minimize(std::size_t variable, double coefficient) { objective_[variable] = coefficient; }
  /// Starts a row of zeros; `set` fills it.
  std::size_t add_row(Sense sense, double right_hand_side);
  void set(std::size_t row, std::size_t variable, double coefficient) {
    coefficients_[row * objective_.size() + variable] = coefficient;
  }

  /// Nothing where no point satisfies the rows. An unbounded objective is a bug of the caller and
  /// aborts.
  std::optional<Solution> solve() const;

 private:
  struct Row {
    Sense sense;
    double right_hand_side;
  };
  std::vector<double> objective_;
  std::vector<Row> rows_;
  std::vector<double> coefficients_;  // a row after the other
};

}  // namespace modalkv
