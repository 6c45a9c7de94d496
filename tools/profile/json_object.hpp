// Strict reading of a JSON object: every key is known, every value has its type and range, every
// error says where.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace modalkv {

/// Parses one JSON document. Throws Error naming `file` and the line for bad syntax and for a key
/// that stands twice.
nlohmann::json parse_json(std::string_view text, std::string_view file);

/// One object of a document, by path ("gpu.efficiency"). Each getter throws Error for a missing
/// key, a wrong type or a value out of range; `finish` for keys that nobody asked for. Borrows the
/// document.
class JsonObject {
 public:
  JsonObject(const nlohmann::json& value, std::string file, std::string path = "");

  bool has(std::string_view key) const;
  std::string text(std::string_view key);
  bool boolean(std::string_view key, bool otherwise);
  std::int64_t integer(std::string_view key, std::int64_t low, std::int64_t high);
  std::int64_t integer_or(std::string_view key, std::int64_t low, std::int64_t high,
                          std::int64_t otherwise);
  double number(std::string_view key, double low, double high);
  double number_or(std::string_view key, double low, double high, double otherwise);
  JsonObject object(std::string_view key);
  std::vector<JsonObject> objects(std::string_view key);
  /// Accepts what is under `key` without looking at it.
  void ignore(std::string_view key) { seen_.insert(std::string(key)); }
  void finish() const;

  [[noreturn]] void fail(std::string_view key, std::string_view expected) const;

 private:
  const nlohmann::json& at(std::string_view key);
  std::string where(std::string_view key) const;

  const nlohmann::json& value_;
  std::string file_, path_;
  std::set<std::string, std::less<>> seen_;
};

}  // namespace modalkv
