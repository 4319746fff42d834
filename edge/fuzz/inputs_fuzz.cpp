// What the process that decodes hands to the one with the model, should it be taken over: messages of any size and content.
#include <sys/socket.h>

#include "fuzz.hpp"
#include "inputs.hpp"

using namespace ruyicam::edge;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr size_t kInput = 400;
  const InputPair pair(kInput);
  size_t sent = 0;
  // Few enough to wait in the socket.
  for (const std::string& message : fuzz::parts(data, size, 3))
    if (!message.empty() && ::send(pair.write, message.data(), std::min(message.size(), size_t(800)), MSG_DONTWAIT) > 0) ++sent;
  ::shutdown(pair.write, SHUT_WR);
  InputReader reader(pair.read, kInput);
  size_t got = 0;
  while (reader.read([&](const RecordHead&, const uint8_t* bytes, size_t length) {
    fuzz::demand(length <= kInput, "a message that is larger than an input");
    uint8_t sum = 0;
    for (size_t i = 0; i < length; ++i) sum = uint8_t(sum + bytes[i]);
    static volatile uint8_t sink;
    sink = sum;
    (void)sink;
  }))
    ++got;
  fuzz::demand(got <= sent, "a message that nobody sent");
  ::close(pair.read);
  ::close(pair.write);
  return 0;
}
