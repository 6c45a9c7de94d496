// Shipped profiles as text, changed in one place.
#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "modalkv/error.hpp"
#include "tools/profile/profile.hpp"

namespace modalkv {

inline std::filesystem::path shipped(std::string_view kind) {
  return std::filesystem::path(MODALKV_SOURCE_DIR) / "tools" / kind;
}

inline nlohmann::json shipped_json(std::string_view kind, std::string_view name) {
  return nlohmann::json::parse(read_text_file(shipped(kind) / (std::string(name) + ".json")));
}

/// "no error" where there is none.
inline std::string error_of(const std::function<void()>& action) {
  try {
    action();
    return "no error";
  } catch (const Error& error) {
    return error.what();
  }
}

/// Pointers to every member of every object in `document`, but not to notes.
inline std::vector<nlohmann::json::json_pointer> members(
    const nlohmann::json& document,
    const nlohmann::json::json_pointer& at = nlohmann::json::json_pointer()) {
  std::vector<nlohmann::json::json_pointer> result;
  if (!document.is_structured()) return result;
  for (const auto& [key, value] : document.items()) {
    if (key == "note") continue;
    const auto member = document.is_array() ? at / std::stoul(key) : at / key;
    if (document.is_object()) result.push_back(member);
    for (const auto& inner : members(value, member)) result.push_back(inner);
  }
  return result;
}

/// "/gpu/efficiency" or "/value/0/cores" as errors name it: "gpu.efficiency", "value[0].cores".
inline std::string key_of(const nlohmann::json::json_pointer& pointer) {
  std::string key, part;
  for (const char c : pointer.to_string().substr(1) + "/") {
    if (c != '/') {
      part += c;
    } else {
      const bool index = part.find_first_not_of("0123456789") == std::string::npos;
      key += index ? "[" + part + "]" : (key.empty() ? "" : ".") + part;
      part.clear();
    }
  }
  return key;
}

}  // namespace modalkv
