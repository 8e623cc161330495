// Typed access to JSON objects that users and checkpoints supply.
#include "runtime/config.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "status.h"

namespace omni {
namespace {

// The value as it appears in an error: short JSON, cut where it gets long.
std::string excerpt(const nlohmann::json& value) {
  constexpr size_t kLimit = 60;
  std::string text = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (text.size() > kLimit) text = text.substr(0, kLimit) + "...";
  return text;
}

std::string in_quotes(std::string_view key) { return "\"" + std::string(key) + "\""; }

// nullptr if the key is missing or null, which mean the same in checkpoints.
const nlohmann::json* lookup(const nlohmann::json& object, std::string_view key) {
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

const nlohmann::json& require(const Config& config, std::string_view key, const char* expected) {
  const nlohmann::json* value = lookup(config.json(), key);
  if (value == nullptr) config.fail(in_quotes(key) + " is missing, expected " + expected);
  return *value;
}

[[noreturn]] void fail_kind(const Config& config, std::string_view key, const char* expected,
                            const nlohmann::json& found) {
  config.fail(in_quotes(key) + ": expected " + expected + ", found " + excerpt(found));
}

int64_t to_integer(const Config& config, std::string_view key, const nlohmann::json& value) {
  const bool too_large = value.is_number_unsigned() &&
                         value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  if (!value.is_number_integer() || too_large) fail_kind(config, key, "an integer of 64 bits", value);
  return value.get<int64_t>();
}

double to_number(const Config& config, std::string_view key, const nlohmann::json& value) {
  if (!value.is_number() || !std::isfinite(value.get<double>()))
    fail_kind(config, key, "a finite number", value);
  return value.get<double>();
}

std::vector<int64_t> to_integers(const Config& config, std::string_view key, const nlohmann::json& value) {
  if (!value.is_array()) fail_kind(config, key, "a list of integers", value);
  std::vector<int64_t> integers;
  integers.reserve(value.size());
  for (const auto& entry : value) integers.push_back(to_integer(config, key, entry));
  return integers;
}

}  // namespace

nlohmann::json parse_json(std::string_view text, const std::string& where) {
  constexpr int kMaxDepth = 64;
  const auto limit_depth = [&](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    if (depth > kMaxDepth) throw Error(OMNI_INVALID_ARGUMENT, where + ": JSON nested too deeply");
    return true;
  };
  try {
    return nlohmann::json::parse(text, limit_depth);
  } catch (const nlohmann::json::exception& error) {
    throw Error(OMNI_INVALID_ARGUMENT, where + ": not JSON: " + error.what());
  }
}

Config::Config(const nlohmann::json* object, std::string path) : object_(object), path_(std::move(path)) {
  if (!object_->is_object()) fail("expected a JSON object, found " + excerpt(*object_));
}

bool Config::has(std::string_view key) const { return lookup(*object_, key) != nullptr; }

Config Config::object(std::string_view key) const {
  const nlohmann::json& value = require(*this, key, "an object");
  if (!value.is_object()) fail_kind(*this, key, "an object", value);
  const bool nested = path_.find(": ") != std::string::npos;
  return Config(&value, path_ + (nested ? "." : ": ") + std::string(key));
}

std::optional<Config> Config::maybe_object(std::string_view key) const {
  if (!has(key)) return std::nullopt;
  return object(key);
}

int64_t Config::integer(std::string_view key) const {
  return to_integer(*this, key, require(*this, key, "an integer"));
}

int64_t Config::integer(std::string_view key, int64_t fallback) const {
  return has(key) ? integer(key) : fallback;
}

int64_t Config::positive(std::string_view key) const {
  const int64_t value = integer(key);
  if (value <= 0) fail(in_quotes(key) + ": expected an integer > 0, found " + std::to_string(value));
  return value;
}

double Config::number(std::string_view key) const {
  return to_number(*this, key, require(*this, key, "a number"));
}

double Config::number(std::string_view key, double fallback) const {
  return has(key) ? number(key) : fallback;
}

bool Config::boolean(std::string_view key, bool fallback) const {
  const nlohmann::json* value = lookup(*object_, key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) fail_kind(*this, key, "true or false", *value);
  return value->get<bool>();
}

std::string Config::string(std::string_view key) const {
  const nlohmann::json& value = require(*this, key, "a string");
  if (!value.is_string()) fail_kind(*this, key, "a string", value);
  return value.get<std::string>();
}

std::string Config::string(std::string_view key, const std::string& fallback) const {
  return has(key) ? string(key) : fallback;
}

std::vector<int64_t> Config::integers(std::string_view key) const {
  return to_integers(*this, key, require(*this, key, "a list of integers"));
}

std::vector<int64_t> Config::integers(std::string_view key, std::vector<int64_t> fallback) const {
  return has(key) ? integers(key) : std::move(fallback);
}

void Config::fail(const std::string& message) const {
  throw Error(OMNI_INVALID_ARGUMENT, path_ + ": " + message);
}

void Config::reject_unknown(const std::vector<std::string_view>& known) const {
  for (const auto& [key, value] : object_->items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    std::string list;
    for (const std::string_view name : known) list += (list.empty() ? "" : ", ") + std::string(name);
    fail("unknown key " + in_quotes(key) + ", expected one of: " + list);
  }
}

}  // namespace omni
