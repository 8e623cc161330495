// Checking which error a statement throws.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "status.h"

namespace omni {

// Runs body and expects an omni::Error of this code whose text contains every part.
template <typename Body>
void expect_error(Body&& body, omni_code code, const std::vector<std::string>& parts) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    for (const std::string& part : parts) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos)
          << "\"" << error.what() << "\" lacks \"" << part << "\"";
    }
    return;
  }
  ADD_FAILURE() << "no error was thrown, expected \"" << (parts.empty() ? "" : parts.front()) << "\"";
}

}  // namespace omni
