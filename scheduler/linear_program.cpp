#include "scheduler/linear_program.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>

namespace modalkv {
namespace {

constexpr double kTolerance = 1e-9;
constexpr double kInfeasibility = 1e-7;
constexpr int kPivotsBeforeBland = 64;

// Rows of the tableau hold basis variables; the last row the reduced costs; the last column
// right-hand sides.
class Tableau {
 public:
  Tableau(std::size_t rows, std::size_t columns)
      : rows_(rows), columns_(columns), cells_((rows + 1) * (columns + 1)), basis_(rows) {}

  double& at(std::size_t row, std::size_t column) { return cells_[row * (columns_ + 1) + column]; }
  double& right(std::size_t row) { return at(row, columns_); }
  double& cost(std::size_t column) { return at(rows_, column); }
  std::size_t& basis(std::size_t row) { return basis_[row]; }
  std::size_t rows() const { return rows_; }

  void pivot(std::size_t row, std::size_t column) {
    const double scale = 1 / at(row, column);
    for (std::size_t j = 0; j <= columns_; ++j) at(row, j) *= scale;
    for (std::size_t i = 0; i <= rows_; ++i) {
      const double factor = at(i, column);
      if (i == row || factor == 0) continue;
      for (std::size_t j = 0; j <= columns_; ++j) at(i, j) -= factor * at(row, j);
    }
    basis_[row] = column;
  }

  // False where the objective is unbounded over the first `usable` columns.
  bool minimize(std::size_t usable) {
    for (int pivots = 0;; ++pivots) {
      const std::size_t entering = entering_column(usable, pivots >= kPivotsBeforeBland);
      if (entering == usable) return true;
      const std::size_t leaving = leaving_row(entering);
      if (leaving == rows_) return false;
      pivot(leaving, entering);
    }
  }

 private:
  // The steepest column; after many pivots Bland's rule, the first that helps, which cannot cycle.
  std::size_t entering_column(std::size_t usable, bool bland) {
    std::size_t entering = usable;
    double steepest = -kTolerance;
    for (std::size_t j = 0; j < usable; ++j) {
      if (cost(j) >= steepest) continue;
      steepest = cost(j);
      entering = j;
      if (bland) break;
    }
    return entering;
  }

  std::size_t leaving_row(std::size_t entering) {
    std::size_t leaving = rows_;
    double best = std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < rows_; ++i) {
      if (at(i, entering) <= kTolerance) continue;
      const double ratio = right(i) / at(i, entering);
      const bool tie = leaving < rows_ && std::abs(ratio - best) <= kTolerance;
      if (tie ? basis_[i] < basis_[leaving] : ratio < best) {
        best = ratio;
        leaving = i;
      }
    }
    return leaving;
  }

  std::size_t rows_, columns_;
  std::vector<double> cells_;
  std::vector<std::size_t> basis_;
};

}  // namespace

std::size_t LinearProgram::add_row(Sense sense, double right_hand_side) {
  rows_.push_back({sense, right_hand_side});
  coefficients_.resize(coefficients_.size() + objective_.size());
  return rows_.size() - 1;
}

std::optional<LinearProgram::Solution> LinearProgram::solve() const {
  // Rows are turned so that right-hand sides are not negative. A row that then reads "at most"
  // starts with its slack in the basis; the others need an artificial variable, which phase one
  // drives to zero.
  const std::size_t variables = objective_.size(), rows = rows_.size();
  const auto turned = [&](const Row& row) {
    return row.right_hand_side < 0 || (row.right_hand_side == 0 && row.sense == Sense::at_least);
  };
  const auto slack_starts = [&](const Row& row) {
    return row.sense == (turned(row) ? Sense::at_least : Sense::at_most);
  };
  const std::size_t artificial = variables + rows;
  const auto artificials = static_cast<std::size_t>(std::count_if(
      rows_.begin(), rows_.end(), [&](const Row& row) { return !slack_starts(row); }));
  Tableau tableau(rows, artificial + artificials);
  std::size_t next_artificial = artificial;
  for (std::size_t i = 0; i < rows; ++i) {
    const Row& row = rows_[i];
    const double sign = turned(row) ? -1 : 1;
    for (std::size_t j = 0; j < variables; ++j)
      tableau.at(i, j) = sign * coefficients_[i * variables + j];
    if (row.sense != Sense::equal)
      tableau.at(i, variables + i) = sign * (row.sense == Sense::at_most ? 1 : -1);
    tableau.right(i) = sign * row.right_hand_side;
    if (slack_starts(row)) {
      tableau.basis(i) = variables + i;
      continue;
    }
    tableau.at(i, next_artificial) = 1;
    tableau.basis(i) = next_artificial++;
    for (std::size_t j = 0; j < artificial; ++j) tableau.cost(j) -= tableau.at(i, j);
    tableau.right(rows) -= tableau.right(i);
  }
  tableau.minimize(artificial);
  if (-tableau.right(rows) > kInfeasibility) return std::nullopt;
  // An artificial left in the basis at zero must not grow again.
  for (std::size_t i = 0; i < rows; ++i) {
    if (tableau.basis(i) < artificial) continue;
    for (std::size_t j = 0; j < artificial; ++j) {
      if (std::abs(tableau.at(i, j)) <= kTolerance) continue;
      tableau.pivot(i, j);
      break;
    }
  }

  const std::size_t columns = artificial + artificials;
  for (std::size_t j = 0; j <= columns; ++j) tableau.cost(j) = j < variables ? objective_[j] : 0;
  for (std::size_t i = 0; i < rows; ++i) {
    const std::size_t basic = tableau.basis(i);
    const double price = basic < variables ? objective_[basic] : 0;
    if (price == 0) continue;
    for (std::size_t j = 0; j <= columns; ++j) tableau.cost(j) -= price * tableau.at(i, j);
  }
  if (!tableau.minimize(artificial)) {
    std::fputs("modalkv: bug: unbounded linear program\n", stderr);
    std::abort();
  }
  Solution solution{std::vector<double>(variables), -tableau.right(rows)};
  for (std::size_t i = 0; i < rows; ++i)
    if (tableau.basis(i) < variables) solution.values[tableau.basis(i)] = tableau.right(i);
  return solution;
}

}  // namespace modalkv
