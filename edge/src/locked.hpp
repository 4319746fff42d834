// Memory for pictures and keys: never swapped, wiped when it goes.
#pragma once
#include <sodium.h>

#include <cstddef>

#include "error.hpp"

namespace ruyicam::edge {

template <class T>
class LockedArray {
 public:
  // Throws Error(kInternal) where no more memory may be locked.
  explicit LockedArray(size_t n) : size_(n), data_(sodium_init() < 0 ? nullptr : static_cast<T*>(sodium_allocarray(n, sizeof(T)))) {
    if (!data_) throw Error(Exit::kInternal, "no lockable memory left (see ulimit -l)");
  }
  ~LockedArray() { sodium_free(data_); }
  LockedArray(const LockedArray&) = delete;
  LockedArray& operator=(const LockedArray&) = delete;
  T* data() { return data_; }
  size_t size() const { return size_; }

 private:
  size_t size_;
  T* data_;
};

}  // namespace ruyicam::edge
