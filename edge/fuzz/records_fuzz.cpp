// What the process that sees frames writes on its pipe, should it be taken over: read, and put on the packet clock.
#include <fcntl.h>

#include "fuzz.hpp"
#include "pacer.hpp"

using namespace ruyicam::edge;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  int ends[2];
  fuzz::demand(::pipe(ends) == 0, "no pipe");
  constexpr size_t kPayload = 64;
  size = std::min(size, size_t(60000));
  fuzz::demand(::write(ends[1], data, size) == ssize_t(size), "the pipe is too small");
  ::close(ends[1]);
  RecordPipe pipe(ends[0], -1, kPayload);
  uint64_t sent = 0;
  {
    Pacer pacer(60, 0, kPayload, [&](const Record& record) {
      fuzz::demand(record.payload.size() == kPayload, "a payload of another size");
      ++sent;
    });
    while (auto record = pipe.read(0)) pacer.put(std::move(*record));
  }
  fuzz::demand(pipe.ended(), "the end was not seen");
  ::close(ends[0]);
  return 0;
}
