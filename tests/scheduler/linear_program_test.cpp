#include "scheduler/linear_program.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <random>
#include <string>
#include <vector>

namespace modalkv {
namespace {

using Sense = LinearProgram::Sense;

struct Row {
  std::vector<double> coefficients;
  Sense sense;
  double right_hand_side;
};

struct Problem {
  std::vector<double> objective;
  std::vector<Row> rows;

  LinearProgram program() const {
    LinearProgram result(objective.size());
    for (std::size_t j = 0; j < objective.size(); ++j) result.minimize(j, objective[j]);
    for (const Row& row : rows) {
      const std::size_t r = result.add_row(row.sense, row.right_hand_side);
      for (std::size_t j = 0; j < objective.size(); ++j) result.set(r, j, row.coefficients[j]);
    }
    return result;
  }
};

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

bool satisfies(const Problem& problem, const std::vector<double>& point, double tolerance) {
  for (const double value : point)
    if (value < -tolerance) return false;
  for (const Row& row : problem.rows) {
    const double excess = dot(row.coefficients, point) - row.right_hand_side;
    if (row.sense != Sense::at_least && excess > tolerance) return false;
    if (row.sense != Sense::at_most && excess < -tolerance) return false;
  }
  return true;
}

// The point where `planes` (coefficients and right-hand side) meet, by Gaussian elimination.
std::optional<std::vector<double>> meeting_point(std::vector<std::vector<double>> planes) {
  const std::size_t n = planes.size();
  for (std::size_t c = 0; c < n; ++c) {
    std::size_t pivot = c;
    for (std::size_t r = c; r < n; ++r)
      if (std::abs(planes[r][c]) > std::abs(planes[pivot][c])) pivot = r;
    if (std::abs(planes[pivot][c]) < 1e-9) return std::nullopt;
    std::swap(planes[c], planes[pivot]);
    for (std::size_t r = 0; r < n; ++r) {
      const double factor = planes[r][c] / planes[c][c];
      for (std::size_t k = c; r != c && k <= n; ++k) planes[r][k] -= factor * planes[c][k];
    }
  }
  std::vector<double> point(n);
  for (std::size_t c = 0; c < n; ++c) point[c] = planes[c][n] / planes[c][c];
  return point;
}

// The least objective over all vertices: every choice of as many rows and axes as variables.
std::optional<double> best_vertex(const Problem& problem) {
  const std::size_t n = problem.objective.size();
  std::vector<std::vector<double>> planes;
  for (const Row& row : problem.rows) {
    planes.push_back(row.coefficients);
    planes.back().push_back(row.right_hand_side);
  }
  for (std::size_t j = 0; j < n; ++j) {
    planes.emplace_back(n + 1);
    planes.back()[j] = 1;
  }
  std::optional<double> best;
  std::vector<bool> chosen(planes.size());
  std::fill(chosen.end() - static_cast<std::ptrdiff_t>(n), chosen.end(), true);
  do {
    std::vector<std::vector<double>> meeting;
    for (std::size_t p = 0; p < planes.size(); ++p)
      if (chosen[p]) meeting.push_back(planes[p]);
    const auto point = meeting_point(meeting);
    if (!point || !satisfies(problem, *point, 1e-8)) continue;
    const double value = dot(problem.objective, *point);
    if (!best || value < *best) best = value;
  } while (std::next_permutation(chosen.begin(), chosen.end()));
  return best;
}

// Small whole numbers, so that ties, redundant rows and vertices on many planes are common. The
// last row bounds every variable.
Problem random_problem(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto between = [&](int least, int most) {
    return std::uniform_int_distribution<int>(least, most)(random);
  };
  const auto variables = static_cast<std::size_t>(between(1, 4));
  const int rows = between(1, 4);
  Problem problem;
  for (std::size_t j = 0; j < variables; ++j) problem.objective.push_back(between(-4, 4));
  for (int r = 0; r < rows; ++r) {
    Row row{{}, static_cast<Sense>(between(0, 2)), static_cast<double>(between(-3, 6))};
    for (std::size_t j = 0; j < variables; ++j) row.coefficients.push_back(between(-3, 3));
    problem.rows.push_back(row);
    if (between(0, 5) == 0) problem.rows.push_back(row);
  }
  problem.rows.push_back({std::vector<double>(variables, 1), Sense::at_most, 10});
  return problem;
}

TEST(LinearProgram, AgreesWithTheEnumerationOfVertices) {
  int solved = 0, infeasible = 0;
  for (std::uint64_t seed = 1; seed <= 5000; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const Problem problem = random_problem(seed);
    const auto best = best_vertex(problem);
    const auto solution = problem.program().solve();
    ASSERT_EQ(solution.has_value(), best.has_value());
    ++(best ? solved : infeasible);
    if (!best) continue;
    ASSERT_TRUE(satisfies(problem, solution->values, 1e-7));
    ASSERT_NEAR(solution->objective, *best, 1e-7);
    ASSERT_NEAR(dot(problem.objective, solution->values), solution->objective, 1e-7);
  }
  EXPECT_GT(solved, 1000);
  EXPECT_GT(infeasible, 500);
}

TEST(LinearProgram, SolvesATextbookProblem) {
  // Most of 3x + 5y with x <= 4, 2y <= 12, 3x + 2y <= 18: (2, 6), 36.
  const Problem problem{
      {-3, -5},
      {{{1, 0}, Sense::at_most, 4}, {{0, 2}, Sense::at_most, 12}, {{3, 2}, Sense::at_most, 18}}};
  const auto solution = problem.program().solve();
  ASSERT_TRUE(solution);
  EXPECT_NEAR(solution->values[0], 2, 1e-9);
  EXPECT_NEAR(solution->values[1], 6, 1e-9);
  EXPECT_NEAR(solution->objective, -36, 1e-9);
}

TEST(LinearProgram, NothingWhereRowsContradict) {
  const Problem apart{{1}, {{{1}, Sense::at_least, 2}, {{1}, Sense::at_most, 1}}};
  EXPECT_FALSE(apart.program().solve());
  const Problem negative{{1}, {{{1}, Sense::equal, -1}}};
  EXPECT_FALSE(negative.program().solve()) << "variables are not negative";
  const Problem parallel{{1, 1}, {{{1, 2}, Sense::equal, 3}, {{2, 4}, Sense::equal, 7}}};
  EXPECT_FALSE(parallel.program().solve());
}

TEST(LinearProgram, RedundantEqualitiesDoNoHarm) {
  const Problem problem{{1, 2, 0},
                        {{{1, 1, 1}, Sense::equal, 1},
                         {{2, 2, 2}, Sense::equal, 2},
                         {{1, 1, 1}, Sense::equal, 1},
                         {{0, 0, 1}, Sense::at_most, 0.25}}};
  const auto solution = problem.program().solve();
  ASSERT_TRUE(solution);
  EXPECT_NEAR(solution->objective, 0.75, 1e-9);
}

// Beale's example, on which the steepest column alone can cycle: 1 / 20 at (1 / 25, 0, 1, 0).
TEST(LinearProgram, DoesNotCycle) {
  const Problem problem{{-0.75, 150, -0.02, 6},
                        {{{0.25, -60, -0.04, 9}, Sense::at_most, 0},
                         {{0.5, -90, -0.02, 3}, Sense::at_most, 0},
                         {{0, 0, 1, 0}, Sense::at_most, 1}}};
  const auto solution = problem.program().solve();
  ASSERT_TRUE(solution);
  EXPECT_NEAR(solution->objective, -0.05, 1e-9);
}

// Assignments: every vertex lies on far more planes than it needs.
TEST(LinearProgram, DegenerateAssignmentsAreSolved) {
  constexpr std::size_t kSize = 4;
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    Problem problem;
    for (std::size_t v = 0; v < kSize * kSize; ++v)
      problem.objective.push_back(static_cast<double>(random() % 10));
    for (std::size_t i = 0; i < kSize; ++i) {
      Row worker{std::vector<double>(kSize * kSize), Sense::equal, 1}, job = worker;
      for (std::size_t j = 0; j < kSize; ++j)
        worker.coefficients[i * kSize + j] = job.coefficients[j * kSize + i] = 1;
      problem.rows.push_back(worker);
      problem.rows.push_back(job);
    }
    std::vector<std::size_t> jobs{0, 1, 2, 3};
    double best = 1e9;
    do {
      double sum = 0;
      for (std::size_t i = 0; i < kSize; ++i) sum += problem.objective[i * kSize + jobs[i]];
      best = std::min(best, sum);
    } while (std::next_permutation(jobs.begin(), jobs.end()));
    const auto solution = problem.program().solve();
    ASSERT_TRUE(solution);
    ASSERT_NEAR(solution->objective, best, 1e-9);
    ASSERT_TRUE(satisfies(problem, solution->values, 1e-9));
  }
}

TEST(LinearProgramDeathTest, AnUnboundedObjectiveAborts) {
  const Problem problem{{-1, 0}, {{{1, -1}, Sense::at_most, 1}}};
  EXPECT_DEATH(static_cast<void>(problem.program().solve()), "unbounded");
}

}  // namespace
}  // namespace modalkv
