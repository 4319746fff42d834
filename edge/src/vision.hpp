// The process that sees frames: source to packed features. All that leaves it are records on one pipe.
#pragma once
#include <atomic>

#include "bundle.hpp"
#include "config.hpp"
#include "error.hpp"
#include "records.hpp"

namespace ruyicam::edge {

// Runs until the source ends or `stop` is set, and returns the process's exit code; a failure has been reported on the
// pipe. source_fd: where a fetch process writes the stream, -1 if the source is opened here. epoch: tick 0, if it has been.
Exit see(const Config& config, const Bundle& bundle, RecordPipe& pipe, int source_fd, const Epoch& epoch, const std::atomic<bool>& stop);

}  // namespace ruyicam::edge
