// Models and machines as JSON files: found by name, or a user's own by path.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "modalkv/hardware.hpp"
#include "modalkv/model.hpp"

namespace modalkv {

/// By name ("llava-1.5-7b"), or by path where `name_or_path` has a slash or ends in ".json". Throw
/// Error.
ModelGeometry load_model(std::string_view name_or_path);
HardwareProfile load_hardware(std::string_view name_or_path);

/// `file` only names the text in errors.
ModelGeometry parse_model(std::string_view text, std::string_view file);
HardwareProfile parse_hardware(std::string_view text, std::string_view file);

/// Names that load_model and load_hardware find, sorted.
std::vector<std::string> list_models();
std::vector<std::string> list_hardware();

/// The folder that holds models/, hardware/ and samples/: $MODALKV_PROFILE_DIR, else beside the
/// running program, as installed (../share/modalkv) or as built (../../tools). Throws Error where
/// there is none.
std::filesystem::path profile_folder();

/// A whole file as text. Throws Error, one line.
std::string read_text_file(const std::filesystem::path& path);

}  // namespace modalkv
