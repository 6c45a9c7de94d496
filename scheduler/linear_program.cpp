#include "scheduler/linear_program.hpp"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>

namespace modalkv {
namespace {

constexpr double kTolerance = 1e-9;

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
    for (;;) {
      std::size_t entering = usable;
      for (std::size_t j = 0; j < usable && entering == usable; ++j)
        if (cost(j) < -kTolerance) entering = j;
      if (entering == usable) return true;
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
      if (leaving == rows_) return false;
      pivot(leaving, entering);
    }
  }

 private:
  std::size_t rows_, columns_;
  std::vector<double> cells_;
  std::vector<std::size_t> basis_;
};

}  // namespace

LinearProgram::LinearProgram(int variables) : objective_(static_cast<std::size_t>(variables)) {}

void LinearProgram::minimize(int variable, double coefficient) {
  objective_[static_cast<std::size_t>(variable)] = coefficient;
}

int LinearProgram::add_row(Sense sense, double right_hand_side) {
  rows_.push_back({std::vector<double>(objective_.size()), sense, right_hand_side});
  return static_cast<int>(rows_.size()) - 1;
}

void LinearProgram::set(int row, int variable, double coefficient) {
  rows_[static_cast<std::size_t>(row)].coefficients[static_cast<std::size_t>(variable)] =
      coefficient;
}

std::optional<LinearProgram::Solution> LinearProgram::solve() const {
  // Columns: variables, one slack or surplus a row, one artificial a row.
  const std::size_t variables = objective_.size(), rows = rows_.size();
  const std::size_t artificial = variables + rows;
  Tableau tableau(rows, artificial + rows);
  for (std::size_t i = 0; i < rows; ++i) {
    const Row& row = rows_[i];
    const double sign = row.right_hand_side < 0 ? -1 : 1;
    for (std::size_t j = 0; j < variables; ++j) tableau.at(i, j) = sign * row.coefficients[j];
    if (row.sense != Sense::equal)
      tableau.at(i, variables + i) = sign * (row.sense == Sense::at_most ? 1 : -1);
    tableau.right(i) = sign * row.right_hand_side;
    if (tableau.at(i, variables + i) > 0) {
      tableau.basis(i) = variables + i;  // its slack can start in the basis
    } else {
      tableau.at(i, artificial + i) = 1;
      tableau.basis(i) = artificial + i;
      for (std::size_t j = 0; j < artificial; ++j) tableau.cost(j) -= tableau.at(i, j);
      tableau.right(rows) -= tableau.right(i);
    }
  }
  tableau.minimize(artificial);
  if (-tableau.right(rows) > 1e-7) return std::nullopt;
  // An artificial left in the basis at zero must not grow again.
  for (std::size_t i = 0; i < rows; ++i) {
    if (tableau.basis(i) < artificial) continue;
    for (std::size_t j = 0; j < artificial; ++j) {
      if (std::abs(tableau.at(i, j)) <= kTolerance) continue;
      tableau.pivot(i, j);
      break;
    }
  }

  for (std::size_t j = 0; j <= artificial + rows; ++j) tableau.cost(j) = 0;
  for (std::size_t j = 0; j < variables; ++j) tableau.cost(j) = objective_[j];
  for (std::size_t i = 0; i < rows; ++i) {
    const std::size_t basic = tableau.basis(i);
    const double price = basic < variables ? objective_[basic] : 0;
    if (price == 0) continue;
    for (std::size_t j = 0; j <= artificial + rows; ++j)
      tableau.cost(j) -= price * tableau.at(i, j);
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
