// Whole numbers out of JSON, checked: the library itself casts whatever number is there.
#pragma once
#include <concepts>
#include <limits>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <utility>

namespace ruyicam::edge {

struct NotWhole : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

// Throws NotWhole with one line if `value` is not a whole number in the range of T.
template <std::integral T>
T whole(const nlohmann::json& value, const std::string& name) {
  using Limits = std::numeric_limits<T>;
  const bool fits = value.is_number_unsigned()  ? std::in_range<T>(value.get<uint64_t>())
                    : value.is_number_integer() ? std::in_range<T>(value.get<int64_t>())
                                                : false;
  if (!fits)
    throw NotWhole(name + " is not a whole number from " + std::to_string(Limits::min()) + " to " + std::to_string(Limits::max()));
  return value.get<T>();
}

// The member `name` of an object. Throws NotWhole too, nlohmann::json::out_of_range if it is not there.
template <std::integral T>
T whole_at(const nlohmann::json& object, const char* name) {
  return whole<T>(object.at(name), name);
}

}  // namespace ruyicam::edge
