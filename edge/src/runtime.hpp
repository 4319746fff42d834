// The way of a frame on the device: capture, preprocess, encoder, mapping, gate, ledger, spool, uplink.
#pragma once
#include <atomic>

#include "bundle.hpp"
#include "config.hpp"
#include "error.hpp"

namespace ruyicam::edge {

// Runs until the source ends or `stop` is set. Returns kOk, or kUndelivered if the source ended and packets are still
// in the spool after drain_timeout_s; kRestart if another bundle is to be run from now on. Throws Error for everything that the README's exit codes name.
Exit run(const Config& config, const std::atomic<bool>& stop);

}  // namespace ruyicam::edge
