// Memory for vectors: aligned, in large pages where it is large.
#pragma once

#include <cstdlib>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

class Numbers {
 public:
  Numbers() = default;
  Numbers(const Numbers&) = delete;
  Numbers& operator=(const Numbers&) = delete;
  ~Numbers() { std::free(at_); }

  // At least so many bytes, of any content.
  void reserve(size_t bytes) {
    if (bytes <= bytes_) return;
    clear();
    const size_t line = bytes < LARGE ? 64 : LARGE;
    bytes = (bytes + line - 1) / line * line;
    at_ = std::aligned_alloc(line, bytes);
    if (!at_) throw std::bad_alloc();
#if defined(__linux__)
    // A page of 2 MiB takes one entry of the processor's address table, 512 small ones take 512.
    if (line == LARGE) madvise(at_, bytes, MADV_HUGEPAGE);
#endif
    bytes_ = bytes;
  }
  void clear() {
    std::free(at_);
    at_ = nullptr;
    bytes_ = 0;
  }
  float* floats() const { return (float*)at_; }
  char* bytes() const { return (char*)at_; }

 private:
  static constexpr size_t LARGE = 2 << 20;
  void* at_ = nullptr;
  size_t bytes_ = 0;
};
