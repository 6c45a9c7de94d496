// Reads Prometheus' text format 0.0.4 by its grammar, sharing nothing with what writes it.
#pragma once

#include <gtest/gtest.h>

#include <cctype>
#include <cmath>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <utility>

namespace modalkv {

struct PrometheusPage {
  using Labels = std::map<std::string, std::string>;
  std::map<std::string, std::string> types, helps;
  std::map<std::pair<std::string, Labels>, double> samples;

  double value(const std::string& name, const Labels& labels = {}) const {
    const auto found = samples.find({name, labels});
    if (found != samples.end()) return found->second;
    ADD_FAILURE() << "no sample " << name;
    return std::nan("");
  }
  /// Of all samples of a name that have these labels among theirs.
  double sum(const std::string& name, const Labels& labels = {}) const {
    double total = 0;
    for (const auto& [key, value] : samples) {
      bool matches = key.first == name;
      for (const auto& [label, wanted] : labels) {
        const auto found = key.second.find(label);
        matches &= found != key.second.end() && found->second == wanted;
      }
      if (matches) total += value;
    }
    return total;
  }
};

class PrometheusReader {
 public:
  /// Fails the test where the text is not of the format.
  static PrometheusPage read(const std::string& text) {
    PrometheusPage page;
    EXPECT_TRUE(text.ends_with("\n"));
    std::istringstream lines(text);
    std::string family;
    std::set<std::string> ended;
    for (std::string line; std::getline(lines, line);) {
      SCOPED_TRACE(line);
      if (line.starts_with("# HELP ")) {
        const std::string name = word(line, 7);
        EXPECT_TRUE(page.helps.emplace(name, line.substr(8 + name.size())).second);
        EXPECT_GT(line.size(), 9 + name.size()) << "a help says something";
        family = name;
      } else if (line.starts_with("# TYPE ")) {
        const std::string name = word(line, 7), type = line.substr(8 + name.size());
        EXPECT_EQ(name, family) << "the help comes first";
        EXPECT_TRUE(type == "counter" || type == "gauge") << type;
        EXPECT_TRUE(page.types.emplace(name, type).second);
        EXPECT_TRUE(ended.insert(name).second) << "a family stays together";
      } else {
        read_sample(line, family, page);
      }
    }
    return page;
  }

 private:
  static std::string word(const std::string& line, std::size_t at) {
    return line.substr(at, line.find(' ', at) - at);
  }
  static bool is_name(const std::string& name) {
    if (name.empty() || std::isdigit(static_cast<unsigned char>(name[0]))) return false;
    for (const char c : name)
      if (!std::isalnum(static_cast<unsigned char>(c)) && c != '_' && c != ':') return false;
    return true;
  }
  static void read_sample(const std::string& line, const std::string& family,
                          PrometheusPage& page) {
    const std::size_t name_end = line.find_first_of("{ ");
    ASSERT_NE(name_end, std::string::npos);
    const std::string name = line.substr(0, name_end);
    EXPECT_TRUE(is_name(name));
    EXPECT_EQ(name, family) << "a sample stands in its family";
    PrometheusPage::Labels labels;
    std::size_t at = name_end;
    if (line[at] == '{') {
      do {
        const std::size_t equals = line.find("=\"", ++at);
        ASSERT_NE(equals, std::string::npos);
        const std::string label = line.substr(at, equals - at);
        EXPECT_TRUE(is_name(label));
        std::string value;
        for (at = equals + 2; at < line.size() && line[at] != '"'; ++at) {
          if (line[at] == '\\') {
            ASSERT_LT(++at, line.size());
            ASSERT_NE(std::string("\\\"n").find(line[at]), std::string::npos);
            value += line[at] == 'n' ? '\n' : line[at];
          } else {
            value += line[at];
          }
        }
        EXPECT_TRUE(labels.emplace(label, value).second);
        ASSERT_LT(++at, line.size());
      } while (line[at] == ',');
      ASSERT_EQ(line[at++], '}');
    }
    ASSERT_EQ(line[at], ' ');
    std::size_t used = 0;
    const std::string number = line.substr(at + 1);
    const double value = std::stod(number, &used);
    EXPECT_EQ(used, number.size());
    EXPECT_TRUE(page.samples.emplace(std::pair(name, labels), value).second) << "twice";
  }
};

}  // namespace modalkv
