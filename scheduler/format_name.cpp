#include "scheduler/format_name.hpp"

#include <fmt/format.h>

#include <cstddef>
#include <optional>
#include <vector>

#include "modalkv/error.hpp"
#include "scheduler/text_parts.hpp"

namespace modalkv {
namespace {

constexpr std::string_view kNumbers = "fp16, bf16, fp8, int8, int4, int2, nvfp4, mxfp4";
constexpr std::string_view kSuffixes = "-gN, -head, -channel, -symmetric, -fp8meta";
constexpr int kLargestGroup = 4096;

std::optional<ElementFormat> element_named(std::string_view name) {
  if (name == "fp16") return fp16();
  if (name == "bf16") return bf16();
  if (name == "fp8") return fp8_e4m3();
  if (name == "nvfp4") return nvfp4();
  if (name == "mxfp4") return mxfp4();
  if (name == "int8") return int8_token_head();
  if (name == "int4") return int4_token_head();
  if (name == "int2") return int2_grouped(64);
  return std::nullopt;
}

bool is_integer(NumberFormat number) {
  return number == NumberFormat::int8 || number == NumberFormat::int4 ||
         number == NumberFormat::int2;
}

// What the suffixes of one side say; each may come once.
class Suffixes {
 public:
  explicit Suffixes(ElementFormat format) : format_(format) {}

  /// False where there is no such suffix or its kind was given already.
  bool take(std::string_view suffix) {
    if (suffix == "head") return take_group(0);
    if (suffix == "channel") return once(channel_);
    if (suffix == "symmetric") return once(symmetric_);
    if (suffix == "fp8meta") return once(fp8_metadata_);
    if (!suffix.starts_with('g')) return false;
    const auto elements = number_in<int>(suffix.substr(1));
    return elements && *elements >= 16 && *elements <= kLargestGroup && *elements % 16 == 0 &&
           take_group(*elements);
  }

  ElementFormat format() const {
    ElementFormat result = format_;
    if (channel_) {
      result.per_channel = true;
      result.group = 0;
    }
    if (group_) result.group = *group_;
    if (symmetric_) result.zero_bytes = 0;
    if (fp8_metadata_) {
      result.scale_bytes = 1;
      result.zero_bytes = result.zero_bytes > 0 ? 1 : 0;
    }
    return result;
  }

  /// "head" and "channel" name two owners of one scale.
  bool contradictory() const { return channel_ && group_ == 0; }

 private:
  bool take_group(int elements) {
    if (group_) return false;
    group_ = elements;
    return true;
  }
  static bool once(bool& given) {
    const bool first = !given;
    given = true;
    return first;
  }

  ElementFormat format_;
  std::optional<int> group_;
  bool channel_ = false, symmetric_ = false, fp8_metadata_ = false;
};

std::string describe(const ElementFormat& format) {
  std::string text(name(format.number));
  if (!is_integer(format.number)) return text;
  text += format.scale_bytes == 1 ? ", FP8 scale" : ", FP16 scale";
  if (format.zero_bytes > 0) text += " and zero";
  if (format.per_channel)
    return text + (format.group == 0 ? std::string(" per channel over the page")
                                     : fmt::format(" per channel over {} tokens", format.group));
  return text + (format.group == 0 ? std::string(" per token and head")
                                   : fmt::format(" per {} elements", format.group));
}

}  // namespace

KvFormat parse_kv_format(std::string_view text) {
  std::vector<Suffixes> sides;
  std::string_view number;
  bool takes_suffixes = false;
  for (const std::string_view word : split(text, '-')) {
    if (const auto element = element_named(word)) {
      if (sides.size() == 2)
        throw Error(fmt::format("format '{}': '{}' is a third number, after those of K and of V",
                                text, word));
      sides.emplace_back(*element);
      number = word;
      takes_suffixes = is_integer(element->number);
    } else if (sides.empty()) {
      throw Error(fmt::format("format '{}': '{}' is no number format, expected one of {}", text,
                              word, kNumbers));
    } else if (!takes_suffixes) {
      throw Error(fmt::format("format '{}': {} takes no suffix, found '-{}'", text, number, word));
    } else if (!sides.back().take(word) || sides.back().contradictory()) {
      throw Error(fmt::format(
          "format '{}': '-{}' is unknown, repeated or contradicts another; expected {} with N a "
          "multiple of 16 from 16 to {}, or V's number format",
          text, word, kSuffixes, kLargestGroup));
    }
  }
  return {sides.front().format(), sides.back().format()};
}

std::string describe(const KvFormat& format) {
  if (format.key == format.value) return describe(format.key);
  return fmt::format("K {}; V {}", describe(format.key), describe(format.value));
}

}  // namespace modalkv
