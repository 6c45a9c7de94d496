#include "tools/profile/json_object.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "modalkv/error.hpp"

namespace modalkv {

using nlohmann::json;

namespace {

// As part of one line, whatever the file says.
std::string printable(std::string text) {
  for (char& c : text)
    if ((c >= 0 && c < ' ') || c == 127) c = '?';
  return text.size() > 60 ? text.substr(0, 57) + "..." : text;
}

// A structure is named, not shown: it may be of any depth.
std::string shown(const json& value) {
  if (value.is_structured()) return value.type_name();
  return printable(value.dump(-1, ' ', true, json::error_handler_t::replace));
}

}  // namespace

json parse_json(std::string_view text, std::string_view file) {
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  const auto watch_keys = [&](int, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second)
      throw Error(
          fmt::format("{}: key '{}' stands twice", file, printable(parsed.get<std::string>())));
    return true;
  };
  if (text.empty()) throw Error(fmt::format("{}: the file is empty", file));
  try {
    return json::parse(text, watch_keys);
  } catch (const json::parse_error& error) {
    const auto end = text.begin() + static_cast<std::ptrdiff_t>(std::min(error.byte, text.size()));
    const auto line = 1 + std::count(text.begin(), end, '\n');
    throw Error(fmt::format("{}:{}: not valid JSON near byte {}", file, line, error.byte));
  } catch (const json::exception& error) {
    throw Error(fmt::format("{}: not valid JSON: a number is out of range", file));
  }
}

JsonObject::JsonObject(const json& value, std::string file, std::string path)
    : value_(value), file_(std::move(file)), path_(std::move(path)) {
  if (!value_.is_object())
    throw Error(fmt::format("{}: {}: found {}, expected an object", file_,
                            path_.empty() ? "the document" : path_, value_.type_name()));
}

std::string JsonObject::where(std::string_view key) const {
  return path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key);
}

void JsonObject::fail(std::string_view key, std::string_view expected) const {
  const auto found = value_.find(key);
  throw Error(fmt::format("{}: key '{}': found {}, expected {}", file_, where(key),
                          found == value_.end() ? "nothing" : shown(*found), expected));
}

bool JsonObject::has(std::string_view key) const {
  return value_.contains(key);
}

const json& JsonObject::at(std::string_view key) {
  seen_.emplace(key);
  const auto found = value_.find(key);
  if (found == value_.end()) throw Error(fmt::format("{}: key '{}' is missing", file_, where(key)));
  return *found;
}

std::string JsonObject::text(std::string_view key) {
  const json& value = at(key);
  if (!value.is_string()) fail(key, "a string");
  return value.get<std::string>();
}

bool JsonObject::boolean(std::string_view key, bool otherwise) {
  if (!has(key)) return otherwise;
  const json& value = at(key);
  if (!value.is_boolean()) fail(key, "true or false");
  return value.get<bool>();
}

std::int64_t JsonObject::integer(std::string_view key, std::int64_t low, std::int64_t high) {
  const json& value = at(key);
  const auto expected = [&] { return fmt::format("a whole number from {} to {}", low, high); };
  if (!value.is_number_integer()) fail(key, expected());
  // Beyond 2^63 the library holds an unsigned number.
  if (value.is_number_unsigned() && value.get<std::uint64_t>() > static_cast<std::uint64_t>(high))
    fail(key, expected());
  const auto number = value.get<std::int64_t>();
  if (number < low || number > high) fail(key, expected());
  return number;
}

std::int64_t JsonObject::integer_or(std::string_view key, std::int64_t low, std::int64_t high,
                                    std::int64_t otherwise) {
  return has(key) ? integer(key, low, high) : otherwise;
}

double JsonObject::number(std::string_view key, double low, double high) {
  const json& value = at(key);
  const auto expected = [&] { return fmt::format("a number from {} to {}", low, high); };
  if (!value.is_number()) fail(key, expected());
  const auto number = value.get<double>();
  if (!(number >= low && number <= high)) fail(key, expected());
  return number;
}

double JsonObject::number_or(std::string_view key, double low, double high, double otherwise) {
  return has(key) ? number(key, low, high) : otherwise;
}

JsonObject JsonObject::object(std::string_view key) {
  return {at(key), file_, where(key)};
}

std::vector<JsonObject> JsonObject::objects(std::string_view key) {
  const json& value = at(key);
  if (!value.is_array()) fail(key, "an array of objects");
  std::vector<JsonObject> result;
  for (std::size_t i = 0; i < value.size(); ++i)
    result.emplace_back(value[i], file_, fmt::format("{}[{}]", where(key), i));
  return result;
}

void JsonObject::finish() const {
  for (const auto& item : value_.items())
    if (!seen_.contains(item.key()))
      throw Error(fmt::format("{}: unknown key '{}'", file_, where(printable(item.key()))));
}

}  // namespace modalkv
