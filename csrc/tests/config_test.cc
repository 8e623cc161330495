// Config: what the getters accept, and what their errors say.
#include "runtime/config.h"

#include <gtest/gtest.h>

#include <limits>

#include "expect_error.h"

namespace omni {
namespace {

const nlohmann::json kDocument = nlohmann::json::parse(R"({
  "layers": 3, "zero": 0, "minus": -2, "theta": 1e6, "half": 0.5, "flag": true, "name": "talker", "nothing": null,
  "huge": 18446744073709551615, "ids": [1, 2, -3], "mixed": [1, "two"],
  "text": {"rope": {"type": "mrope", "sections": [4, 2.5]}}
})");

Config document() { return Config(&kDocument, "config.json"); }

TEST(Config, ReadsEveryKind) {
  const Config config = document();
  EXPECT_EQ(config.integer("layers"), 3);
  EXPECT_EQ(config.integer("minus", 7), -2);
  EXPECT_EQ(config.positive("layers"), 3);
  EXPECT_EQ(config.number("theta"), 1e6);
  EXPECT_EQ(config.number("layers"), 3.0);
  EXPECT_TRUE(config.boolean("flag", false));
  EXPECT_EQ(config.string("name"), "talker");
  EXPECT_EQ(config.integers("ids"), (std::vector<int64_t>{1, 2, -3}));
  EXPECT_EQ(config.object("text").object("rope").string("type"), "mrope");
}

TEST(Config, TreatsNullAsMissing) {
  const Config config = document();
  EXPECT_FALSE(config.has("nothing"));
  EXPECT_EQ(config.integer("nothing", 5), 5);
  EXPECT_EQ(config.number("absent", 0.25), 0.25);
  EXPECT_FALSE(config.boolean("nothing", false));
  EXPECT_EQ(config.string("absent", "x"), "x");
  EXPECT_EQ(config.integers("absent", {9}), std::vector<int64_t>{9});
  EXPECT_FALSE(config.maybe_object("nothing").has_value());
  EXPECT_TRUE(config.maybe_object("text").has_value());
}

TEST(Config, ErrorsNameFileKeyAndValue) {
  const Config config = document();
  const Config rope = config.object("text").object("rope");
  const auto check = [](auto&& body, const std::vector<std::string>& parts) {
    expect_error(body, OMNI_INVALID_ARGUMENT, parts);
  };
  check([&] { config.integer("absent"); }, {"config.json: \"absent\" is missing"});
  check([&] { config.integer("half"); }, {"\"half\": expected an integer", "found 0.5"});
  check([&] { config.integer("huge"); }, {"\"huge\"", "18446744073709551615"});
  check([&] { config.integer("flag"); }, {"found true"});
  check([&] { config.positive("zero"); }, {"\"zero\": expected an integer > 0, found 0"});
  check([&] { config.number("name"); }, {"expected a finite number, found \"talker\""});
  check([&] { config.boolean("layers", true); }, {"expected true or false, found 3"});
  check([&] { config.string("layers"); }, {"expected a string, found 3"});
  check([&] { config.object("layers"); }, {"expected an object, found 3"});
  check([&] { config.integers("layers"); }, {"expected a list of integers, found 3"});
  check([&] { config.integers("mixed"); }, {"\"mixed\"", "found \"two\""});
  check([&] { rope.integers("sections"); }, {"config.json: text.rope: \"sections\"", "found 2.5"});
  check([&] { rope.fail("bad sections"); }, {"config.json: text.rope: bad sections"});
}

TEST(Config, RejectsUnknownKeysByName) {
  const Config rope = document().object("text").object("rope");
  rope.reject_unknown({"sections", "type", "factor"});
  expect_error([&] { rope.reject_unknown({"type", "factor"}); }, OMNI_INVALID_ARGUMENT,
               {"unknown key \"sections\"", "expected one of: type, factor"});
}

TEST(Config, RefusesWhatIsNotAnObject) {
  const nlohmann::json list = {1, 2};
  expect_error([&] { Config(&list, "config.json"); }, OMNI_INVALID_ARGUMENT,
               {"expected a JSON object, found [1,2]"});
}

TEST(Config, LongValuesAreCutInErrors) {
  const nlohmann::json object = {{"key", std::string(10000, 'x')}};
  const Config config(&object, "config.json");
  try {
    config.integer("key");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_LT(std::string(error.what()).size(), 200u);
  }
}

TEST(ParseJson, RefusesBrokenAndDeepText) {
  EXPECT_EQ(parse_json("{\"a\": [1]}", "x").at("a").at(0), 1);
  expect_error([] { parse_json("{\"a\":", "stage config"); }, OMNI_INVALID_ARGUMENT,
               {"stage config: not JSON"});
  expect_error([] { parse_json("", "x"); }, OMNI_INVALID_ARGUMENT, {"not JSON"});
  expect_error([] { parse_json("{\"a\": NaN}", "x"); }, OMNI_INVALID_ARGUMENT, {"not JSON"});
  expect_error([] { parse_json("\"\xff\"", "x"); }, OMNI_INVALID_ARGUMENT, {"not JSON"});
  expect_error([] { parse_json(std::string(1 << 20, '['), "x"); }, OMNI_INVALID_ARGUMENT,
               {"nested too deeply"});
}

}  // namespace
}  // namespace omni
