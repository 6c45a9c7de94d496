// A small dense linear program: minimize c x subject to rows and x >= 0. Two-phase tableau simplex
// with Bland's rule, which cannot cycle. Meant for tens of variables; a caller scales its numbers
// to the order of one.
#pragma once

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

  explicit LinearProgram(int variables);
  void minimize(int variable, double coefficient);
  /// Starts a row; `set` fills it. Unset coefficients are zero.
  int add_row(Sense sense, double right_hand_side);
  void set(int row, int variable, double coefficient);

  /// Nothing where no point satisfies the rows. An unbounded objective is a bug of the caller and
  /// aborts.
  std::optional<Solution> solve() const;

 private:
  struct Row {
    std::vector<double> coefficients;
    Sense sense;
    double right_hand_side;
  };
  std::vector<double> objective_;
  std::vector<Row> rows_;
};

}  // namespace modalkv
