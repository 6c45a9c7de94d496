// What was checked and what was wrong, for a program without a test framework.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

namespace modalkv {

class CheckReport {
 public:
  void begin(const std::string& name) {
    ++cases_;
    name_ = name;
  }
  void expect(bool good, const std::string& what) {
    if (!good) failures_.push_back(name_ + ": " + what);
  }
  int cases() const { return cases_; }
  const std::vector<std::string>& failures() const { return failures_; }

 private:
  int cases_ = 0;
  std::string name_;
  std::vector<std::string> failures_;
};

}  // namespace modalkv
