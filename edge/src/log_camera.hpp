// Whose lines a thread writes to the log.
#pragma once
#include <string>

namespace ruyicam::edge {

// Of this thread; empty: the device's.
inline std::string& log_camera() {
  thread_local std::string camera;
  return camera;
}

// `body`, for a thread that writes as the present one does.
template <class Body>
auto as_this_camera(Body body) {
  return [body, camera = log_camera()] {
    log_camera() = camera;
    body();
  };
}

}  // namespace ruyicam::edge
