// Read access to a checkpoint's JSON files, where every error names the file, the key and what was found.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace omni {

// The document in text. where names it in errors ("config.json", "engine config"). Throws INVALID_ARGUMENT for what is
// not JSON or nests deeper than any configuration does: later steps walk it recursively.
nlohmann::json parse_json(std::string_view text, const std::string& where);

// A JSON object inside a file, with its path ("config.json: thinker_config.text_config"). Cheap to copy; it borrows
// the parsed document, which its maker owns (the Checkpoint that of config.json). Getters throw INVALID_ARGUMENT when a key is missing or of
// another kind, or out of the stated range.
class Config {
 public:
  Config(const nlohmann::json* object, std::string path);

  const nlohmann::json& json() const { return *object_; }
  const std::string& path() const { return path_; }

  bool has(std::string_view key) const;       // present and not null
  Config object(std::string_view key) const;  // a nested object
  std::optional<Config> maybe_object(std::string_view key) const;

  int64_t integer(std::string_view key) const;
  int64_t integer(std::string_view key, int64_t fallback) const;
  int64_t positive(std::string_view key) const;  // an integer > 0
  double number(std::string_view key) const;
  double number(std::string_view key, double fallback) const;
  bool boolean(std::string_view key, bool fallback) const;
  std::string string(std::string_view key) const;
  std::string string(std::string_view key, const std::string& fallback) const;
  std::vector<int64_t> integers(std::string_view key) const;  // a list of integers
  std::vector<int64_t> integers(std::string_view key, std::vector<int64_t> fallback) const;

  // Throws INVALID_ARGUMENT "<file>: <path>: <message>".
  [[noreturn]] void fail(const std::string& message) const;
  // Throws if a key of this object is not in known: for objects that users write (engine and recorder configs).
  void reject_unknown(const std::vector<std::string_view>& known) const;

 private:
  const nlohmann::json* object_;
  std::string path_;
};

}  // namespace omni
