#include "inputs.hpp"

#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "error.hpp"

namespace ruyicam::edge {
namespace {

// Least default of the kernel's limit for a socket's buffer, of which a message's bookkeeping takes a part.
constexpr size_t kMostInput = 128 << 10;

size_t message_size(size_t input) { return sizeof(RecordHead) + std::max(input, payload_size(0)); }

}  // namespace

InputPair::InputPair(size_t size) {
  if (size > kMostInput)
    throw Error(Exit::kBundle, "the model's input takes " + std::to_string(size) + " bytes, of which several cameras can hand on at most " +
                                   std::to_string(kMostInput));
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) throw Error(Exit::kInternal, "no socket pair left");
  read = ends[0];
  write = ends[1];
  // Room for one or two ticks: what waits longer is old.
  const int room = int(message_size(size));
  ::setsockopt(write, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
  // Nothing goes back this way.
  ::shutdown(read, SHUT_WR);
}

bool InputWriter::write(const RecordHead& head, const void* bytes, size_t size) {
  // Both in one message; the head is not written to.
  const iovec parts[2] = {{const_cast<RecordHead*>(&head), sizeof head}, {const_cast<void*>(bytes), size}};
  while (true) {
    const ssize_t wrote = ::writev(fd_, parts, size > 0 ? 2 : 1);
    if (wrote >= 0) return size_t(wrote) == sizeof head + size;
    if (errno != EINTR) return false;
  }
}

bool InputWriter::try_write(const RecordHead& head, const std::string& line) {
  std::string bytes(reinterpret_cast<const char*>(&head), sizeof head);
  bytes += line;
  return ::send(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL) == ssize_t(bytes.size());
}

InputReader::InputReader(int fd, size_t size) : fd_(fd), message_(message_size(size)) {}

bool InputReader::read(const std::function<void(const RecordHead&, const uint8_t*, size_t)>& use) {
  ssize_t got;
  while ((got = ::read(fd_, message_.data(), message_.size())) < 0 && errno == EINTR) continue;
  if (got < ssize_t(sizeof(RecordHead))) return false;
  struct Wipe {
    LockedArray<uint8_t>& message;
    size_t size;
    ~Wipe() { sodium_memzero(message.data(), size); }
  } wipe{message_, size_t(got)};
  RecordHead head;
  std::memcpy(&head, message_.data(), sizeof head);
  use(head, message_.data() + sizeof head, size_t(got) - sizeof head);
  return true;
}

void drain(int fd) {
  char some;
  // Of a message that is longer than the buffer the rest goes with it.
  while (::recv(fd, &some, 1, MSG_DONTWAIT) > 0) continue;
}

}  // namespace ruyicam::edge
