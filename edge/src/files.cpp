#include "files.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace ruyicam::edge {

void throw_storage(const std::string& what, const std::filesystem::path& path) {
  throw Error(Exit::kStorage, what + " " + path.string() + ": " + std::strerror(errno));
}

std::string read_file(const std::filesystem::path& path, Exit code, size_t limit) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw Error(code, path.string() + ": " + std::strerror(errno));
  std::string bytes;
  char chunk[65536];
  ssize_t got;
  while ((got = ::read(fd, chunk, sizeof chunk)) > 0 && bytes.size() <= limit) bytes.append(chunk, size_t(got));
  const int problem = errno;
  ::close(fd);
  if (got < 0) throw Error(code, path.string() + ": " + std::strerror(problem));
  if (bytes.size() > limit) throw Error(code, path.string() + ": larger than " + std::to_string(limit) + " bytes");
  return bytes;
}

std::filesystem::path make_folder(const std::filesystem::path& folder) {
  std::error_code problem;
  std::filesystem::create_directories(folder, problem);
  if (problem) throw Error(Exit::kStorage, "cannot create " + folder.string() + ": " + problem.message());
  return folder;
}

void sync_folder(const std::filesystem::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) throw_storage("cannot open folder", folder);
  ::fsync(fd);
  ::close(fd);
}

void write_file_atomic(const std::filesystem::path& path, const std::string& bytes) {
  std::filesystem::path partial = path;
  partial += ".partial";
  const int fd = ::open(partial.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) throw_storage("cannot write", path);
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t wrote = ::write(fd, bytes.data() + done, bytes.size() - done);
    if (wrote < 0) break;
    done += size_t(wrote);
  }
  if (done < bytes.size() || ::fsync(fd) != 0) {
    const int problem = errno;
    ::close(fd);
    ::unlink(partial.c_str());
    errno = problem;
    throw_storage("cannot write", path);
  }
  ::close(fd);
  if (::rename(partial.c_str(), path.c_str()) != 0) throw_storage("cannot replace", path);
  sync_folder(path.has_parent_path() ? path.parent_path() : std::filesystem::path("."));
}

}  // namespace ruyicam::edge
