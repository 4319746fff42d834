// The processes that see: for one camera a single one; for several a process for each camera's frames, and one with the
// model. All that leaves them are records on one pipe for each camera.
#pragma once
#include <atomic>
#include <vector>

#include "bundle.hpp"
#include "config.hpp"
#include "error.hpp"
#include "inputs.hpp"
#include "records.hpp"

namespace ruyicam::edge {

// All return the process's exit code when the source ends, `stop` is set or the other side is gone; a failure has been
// reported on the pipe. source_fd: where a fetch process writes the stream, -1 if the source is opened here. epoch: tick 0,
// if it has been.

// Frames to records.
Exit see(const Config& camera, const Bundle& bundle, RecordPipe& pipe, int source_fd, const Epoch& epoch, const std::atomic<bool>& stop);
// Frames to inputs of the model.
Exit watch(const Config& camera, const Bundle& bundle, InputWriter& out, int source_fd, const Epoch& epoch, const std::atomic<bool>& stop);
// Inputs of the model to records, one reader and pipe for each camera. Goes on when a camera's process is replaced.
Exit recognise(const Config& config, const Bundle& bundle, const std::vector<int>& inputs, std::vector<RecordPipe>& pipes);

}  // namespace ruyicam::edge
