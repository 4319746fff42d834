// What may be released at most, and what one release costs.
#pragma once
#include <cstdint>
#include <limits>

namespace ruyicam::edge {

constexpr double kUnlimited = std::numeric_limits<double>::infinity();

// Ceilings. Those of a visit hold over every stretch of time of `visit_us`, wherever it begins.
struct LedgerBudget {
  double bits_per_second = kUnlimited, bits_per_day = kUnlimited;
  double mu_per_day = kUnlimited, token_bits_per_day = kUnlimited;
  uint64_t visit_us = 0;  // 0: visits are not bounded
  double visit_mu = kUnlimited, visit_token_bits = kUnlimited;
};

// What one token or one feature release costs: public constants only.
struct Charge {
  uint64_t time_us = 0;   // Unix time of what is released
  uint64_t releases = 0;  // feature releases
  double feature_bits = 0;
  double mu_squared = 0;
  double token_bits = 0;
  // The rarest token's. Room is asked for it whichever token it is, so that a refusal tells nothing about the token.
  double worst_token_bits = 0;
};

}  // namespace ruyicam::edge
