#include "pacer.hpp"

#include <chrono>

#include "log_camera.hpp"

namespace ruyicam::edge {

Pacer::Pacer(int rate_hz, uint64_t hold_ms, size_t payload, std::function<void(const Record&)> send)
    : period_ns_(1000000000u / uint64_t(rate_hz)), hold_ns_(hold_ms * 1000000u), payload_(payload), send_(std::move(send)),
      thread_(as_this_camera([this] { run(); })) {}

Pacer::~Pacer() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Pacer::put(Record record) {
  const std::lock_guard lock(mutex_);
  const RecordHead& head = record.head;
  if (!begun_) {
    begun_ = true;
    next_ = head.number;
    first_ns_ = head.first_ns;
    first_us_ = head.time_us - head.number * period_ns_ / 1000;
  }
  if (head.number < next_)
    ++late_;
  else
    held_.emplace(head.number, std::move(record));
  changed_.notify_all();
}

void Pacer::finish() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

std::string Pacer::problem() const {
  const std::lock_guard lock(mutex_);
  return problem_;
}

void Pacer::run() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return begun_ || ending_ || stop_; });
  while (!stop_) {
    if (ending_ && held_.empty()) return;
    // std::chrono's steady clock is CLOCK_MONOTONIC, which both processes share.
    const std::chrono::steady_clock::time_point due{std::chrono::nanoseconds(first_ns_ + next_ * period_ns_ + hold_ns_)};
    if (changed_.wait_until(lock, due, [&] { return stop_ || (ending_ && held_.empty()); })) continue;
    Record record;
    if (auto node = held_.extract(next_)) {
      record = std::move(node.mapped());
    } else {
      record.head = {.number = next_, .time_us = first_us_ + next_ * period_ns_ / 1000};
      record.payload.assign(payload_, 0);
      ++filled_;
    }
    ++next_;
    lock.unlock();
    try {
      send_(record);
    } catch (const std::exception& error) {
      lock.lock();
      problem_ = error.what();
      return;
    }
    lock.lock();
  }
}

}  // namespace ruyicam::edge
