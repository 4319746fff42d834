// `ruyicam-edge doctor`: one line for each thing that the device needs, and how to mend what is wrong.
#pragma once
#include <atomic>

#include "config.hpp"
#include "error.hpp"

namespace ruyicam::edge {

// Prints "ok", "note" or "FAIL", the part, what was found and, if it is not good, the mend. Opens the camera as a run would,
// for one tick, of which nothing is kept or sent; leaves nothing on disk. To be called while the program has one thread.
// Returns the exit code of the first part that fails, or kOk.
Exit doctor(const Config& config, const std::atomic<bool>& stop);

}  // namespace ruyicam::edge
