#include "spool.hpp"

#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

#include "files.hpp"

namespace ruyicam::edge {
namespace {

constexpr uint64_t kSegmentBytes = 64 * 1024;
constexpr uint32_t kMaxRecord = 64 * 1024;
constexpr size_t kHeader = 8;  // length, CRC-32 of the packet, both little-endian

void put32(uint8_t* p, uint32_t v) {
  for (int i = 0; i < 4; ++i) p[i] = uint8_t(v >> (8 * i));
}

uint32_t get32(const uint8_t* p) { return uint32_t(p[0]) | uint32_t(p[1]) << 8 | uint32_t(p[2]) << 16 | uint32_t(p[3]) << 24; }

uint32_t crc_of(const std::string& packet) {
  return uint32_t(::crc32(0, reinterpret_cast<const Bytef*>(packet.data()), uInt(packet.size())));
}

struct Found {
  uint64_t end = 0;   // where the next record begins; 0: there is no whole record
  std::string packet; // empty: its checksum does not hold
};

Found read_record(int fd, uint64_t offset) {
  uint8_t header[kHeader];
  if (::pread(fd, header, kHeader, off_t(offset)) != ssize_t(kHeader)) return {};
  const uint32_t length = get32(header);
  if (length == 0 || length > kMaxRecord) return {};
  std::string packet(length, '\0');
  if (::pread(fd, packet.data(), length, off_t(offset + kHeader)) != ssize_t(length)) return {};
  if (crc_of(packet) != get32(header + 4)) packet.clear();
  return {offset + kHeader + length, std::move(packet)};
}

std::string record_of(const std::string& packet) {
  std::string record(kHeader + packet.size(), '\0');
  put32(reinterpret_cast<uint8_t*>(record.data()), uint32_t(packet.size()));
  put32(reinterpret_cast<uint8_t*>(record.data()) + 4, crc_of(packet));
  std::memcpy(record.data() + kHeader, packet.data(), packet.size());
  return record;
}

}  // namespace

std::filesystem::path Spool::path_of(uint64_t id) const {
  char name[32];
  std::snprintf(name, sizeof name, "%016" PRIx64 ".seg", id);
  return folder_ / name;
}

Spool::Spool(std::filesystem::path folder, uint64_t max_bytes, std::chrono::seconds max_age, std::function<bool(const std::string&)> essential)
    : folder_(std::move(folder)), max_bytes_(max_bytes), max_age_(max_age), essential_(std::move(essential)) {
  make_folder(folder_);
  std::vector<uint64_t> ids;
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
    const std::string name = entry.path().filename().string();
    uint64_t id = 0;
    int used = 0;
    if (std::sscanf(name.c_str(), "%16" SCNx64 ".seg%n", &id, &used) == 1 && size_t(used) == name.size()) ids.push_back(id);
  }
  std::sort(ids.begin(), ids.end());
  for (const uint64_t id : ids) recover(id);
  const uint64_t first = segments_.empty() ? 0 : segments_.begin()->first;
  read_ = acknowledged_ = {first, 0};
  roll();
}

Spool::~Spool() {
  if (out_ >= 0) ::close(out_);
  if (in_ >= 0) ::close(in_);
  // An empty last segment is nothing worth keeping.
  if (!segments_.empty() && segments_.rbegin()->second.records == 0) ::unlink(path_of(segments_.rbegin()->first).c_str());
}

// Counts the records of a segment left by an earlier run and cuts off what follows the last whole one. A record that is
// damaged among others is passed over.
void Spool::recover(uint64_t id) {
  const auto path = path_of(id);
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) throw_storage("cannot open", path);
  Segment segment;
  uint64_t at = 0, damaged = 0;
  for (Found found; (found = read_record(fd, at)).end > 0; at = found.end) {
    if (found.packet.empty()) {
      ++damaged;
      continue;
    }
    segment.bytes = found.end;
    ++segment.records;
    stats_.damaged += std::exchange(damaged, 0);
  }
  const off_t size = ::lseek(fd, 0, SEEK_END);
  if (size > off_t(segment.bytes)) {
    stats_.torn += uint64_t(size) - segment.bytes;
    if (::ftruncate(fd, off_t(segment.bytes)) != 0) {
      ::close(fd);
      throw_storage("cannot mend", path);
    }
  }
  ::close(fd);
  if (segment.records == 0) {
    ::unlink(path.c_str());
    return;
  }
  stats_.recovered += segment.records;
  total_bytes_ += segment.bytes;
  segments_[id] = segment;
}

void Spool::roll() {
  const uint64_t id = segments_.empty() ? read_.segment : segments_.rbegin()->first + 1;
  const int fd = ::open(path_of(id).c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) throw_storage("cannot create spool segment", path_of(id));
  if (out_ >= 0) ::close(out_);
  out_ = fd;
  segments_[id] = {};
  sync_folder(folder_);
}

void Spool::append(const std::string& packet) {
  if (packet.empty() || packet.size() > kMaxRecord) throw Error(Exit::kInternal, "spool record has an impossible size");
  const std::lock_guard lock(mutex_);
  if (segments_.rbegin()->second.bytes >= kSegmentBytes) roll();
  const std::string record = record_of(packet);
  const uint64_t need = record.size();
  make_room(need);
  Segment& segment = segments_.rbegin()->second;
  const ssize_t wrote = ::pwrite(out_, record.data(), need, off_t(segment.bytes));
  if (wrote != ssize_t(need) || ::fdatasync(out_) != 0) {
    // A short write sets no errno: the disk is full.
    const int problem = wrote >= 0 && wrote != ssize_t(need) ? ENOSPC : errno;
    // Half a record must not stay: the next start would cut it off, but so would a later append overwrite it.
    if (::ftruncate(out_, off_t(segment.bytes)) != 0) stats_.torn += need;
    errno = problem;
    throw_storage("cannot write to spool", folder_);
  }
  segment.bytes += need;
  ++segment.records;
  segment.newest = Clock::now();
  total_bytes_ += need;
  ++stats_.appended;
  grown_.notify_all();
}

void Spool::make_room(uint64_t need) {
  if (max_age_.count() > 0)
    while (segments_.size() > 1 && segments_.begin()->second.newest + max_age_ < Clock::now()) drop_oldest();
  while (total_bytes_ + need > max_bytes_ && segments_.size() > 1) {
    bool thinned = false;
    try {
      thinned = thin_oldest();
    } catch (const Error&) {
      // No room to write the thinner one.
    }
    if (!thinned) drop_oldest();
  }
}

// Takes what is not essential out of the oldest segment that has such, unless part of it is on its way. False: there is none.
bool Spool::thin_oldest() {
  for (auto it = segments_.begin(); std::next(it) != segments_.end(); ++it) {
    auto& [id, segment] = *it;
    if (segment.thinned || id <= read_.segment || segment.acknowledged > 0) continue;
    std::string kept;
    uint64_t records = 0;
    const auto path = path_of(id);
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) throw_storage("cannot open", path);
    uint64_t at = 0;
    for (Found found; at < segment.bytes && (found = read_record(fd, at)).end > 0; at = found.end)
      if (!found.packet.empty() && essential_(found.packet)) {
        kept += record_of(found.packet);
        ++records;
      }
    ::close(fd);
    if (records == 0) {
      drop(it);
      return true;
    }
    segment.thinned = true;
    if (kept.size() == segment.bytes) continue;
    write_file_atomic(path, kept);
    forget(id);
    stats_.dropped += segment.records - records;
    total_bytes_ -= segment.bytes - kept.size();
    segment.bytes = kept.size();
    segment.records = records;
    return true;
  }
  return false;
}

// Its file is gone or another one.
void Spool::forget(uint64_t id) {
  if (in_ >= 0 && in_segment_ == id) ::close(std::exchange(in_, -1));
}

void Spool::drop_oldest() { drop(segments_.begin()); }

void Spool::drop(std::map<uint64_t, Segment>::iterator it) {
  stats_.dropped += it->second.records - it->second.acknowledged;
  total_bytes_ -= it->second.bytes;
  const uint64_t gone = it->first;
  ::unlink(path_of(gone).c_str());
  const Position after{segments_.erase(it)->first, 0};
  if (read_.segment == gone) read_ = after;
  if (acknowledged_.segment == gone) acknowledged_ = after;
  forget(gone);
}

std::optional<std::string> Spool::next(int timeout_ms) {
  std::unique_lock lock(mutex_);
  const auto has_more = [&] {
    const auto it = segments_.lower_bound(read_.segment);
    if (it == segments_.end()) return false;
    return it->first != read_.segment || read_.offset < it->second.bytes || std::next(it) != segments_.end();
  };
  const auto ready = [&] {
    while (has_more()) {
      auto it = segments_.lower_bound(read_.segment);
      if (it->first != read_.segment) read_ = {it->first, 0};
      if (read_.offset < it->second.bytes) return true;
      if (++it == segments_.end()) return false;
      read_ = {it->first, 0};
    }
    return false;
  };
  if (!grown_.wait_for(lock, std::chrono::milliseconds(timeout_ms), ready)) return std::nullopt;
  if (in_ < 0 || in_segment_ != read_.segment) {
    if (in_ >= 0) ::close(in_);
    in_ = ::open(path_of(read_.segment).c_str(), O_RDONLY | O_CLOEXEC);
    in_segment_ = read_.segment;
    if (in_ < 0) throw_storage("cannot read spool segment", path_of(read_.segment));
  }
  Found found = read_record(in_, read_.offset);
  if (found.end == 0) throw Error(Exit::kStorage, "spool segment " + path_of(read_.segment).string() + " changed under us");
  read_.offset = found.end;
  if (found.packet.empty()) {
    lock.unlock();
    return next(timeout_ms);
  }
  handed_.push_back(read_);
  return std::move(found.packet);
}

void Spool::acknowledge(size_t count) {
  const std::lock_guard lock(mutex_);
  for (; count > 0 && !handed_.empty(); --count) {
    acknowledged_ = handed_.front();
    handed_.pop_front();
    ++stats_.acknowledged;
    if (const auto it = segments_.find(acknowledged_.segment); it != segments_.end()) ++it->second.acknowledged;
  }
  remove_finished();
}

void Spool::remove_finished() {
  while (segments_.size() > 1 && segments_.begin()->second.acknowledged == segments_.begin()->second.records) {
    total_bytes_ -= segments_.begin()->second.bytes;
    ::unlink(path_of(segments_.begin()->first).c_str());
    segments_.erase(segments_.begin());
  }
  // The segment being written starts afresh once all of it is stored, so that a restart repeats nothing.
  Segment& last = segments_.rbegin()->second;
  if (segments_.size() == 1 && last.records > 0 && last.acknowledged == last.records && handed_.empty() &&
      last.bytes >= kSegmentBytes / 4) {
    const uint64_t id = segments_.begin()->first;
    try {
      roll();
    } catch (const Error&) {
      return;  // a full disk; what is there stays, and a restart repeats it
    }
    total_bytes_ -= segments_[id].bytes;
    ::unlink(path_of(id).c_str());
    segments_.erase(id);
  }
}

void Spool::rewind() {
  const std::lock_guard lock(mutex_);
  handed_.clear();
  read_ = acknowledged_;
}

bool Spool::empty() const { return pending() == 0; }

uint64_t Spool::pending() const {
  const std::lock_guard lock(mutex_);
  uint64_t count = 0;
  for (const auto& [id, segment] : segments_) count += segment.records - segment.acknowledged;
  return count;
}

SpoolStats Spool::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

}  // namespace ruyicam::edge
