// A pool of threads for many short parallel loops.
#pragma once

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

static inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

// Threads wait for the next loop by spinning for some microseconds, then asleep: a loop comes every
// few microseconds while decoding, and between calls no core may burn.
class Pool {
 public:
  explicit Pool(int count) : count_(count < 1 ? 1 : count) {
    for (int i = 1; i < count_; i++) workers_.emplace_back([this, i] { work(i); });
  }
  ~Pool() {
    stopping_ = true;
    announce();
    for (auto& worker : workers_) worker.join();
  }
  int count() const { return count_; }

  // body(first, last, thread) over 0..tasks, split into one range a thread. Which thread does what
  // changes no result: no two tasks write the same number.
  template <class Body>
  void run(int tasks, const Body& body) {
    if (count_ == 1 || tasks <= 1) {
      if (tasks > 0) body(0, tasks, 0);
      return;
    }
    context_ = &body;
    call_ = [](const void* context, int first, int last, int thread) {
      (*(const Body*)context)(first, last, thread);
    };
    tasks_ = tasks;
    pending_.store(count_ - 1, std::memory_order_relaxed);
    announce();
    share(0);
    for (int spins = 0; pending_.load(std::memory_order_acquire) > 0;) {
      if (++spins < SPINS) relax();
      else std::this_thread::yield();
    }
  }

 private:
  static constexpr int SPINS = 4000;

  void announce() {
    epoch_.fetch_add(1, std::memory_order_acq_rel);
    epoch_.notify_all();
  }
  void share(int thread) {
    int first = (int)((long)tasks_ * thread / count_);
    int last = (int)((long)tasks_ * (thread + 1) / count_);
    if (last > first) call_(context_, first, last, thread);
  }
  void work(int thread) {
    unsigned seen = 0;
    while (true) {
      for (int spins = 0; epoch_.load(std::memory_order_acquire) == seen;) {
        if (++spins < SPINS) relax();
        else epoch_.wait(seen, std::memory_order_acquire);
      }
      seen++;
      if (stopping_) return;
      share(thread);
      pending_.fetch_sub(1, std::memory_order_release);
    }
  }

  int count_;
  std::vector<std::thread> workers_;
  std::atomic<unsigned> epoch_{0};
  std::atomic<int> pending_{0};
  std::atomic<bool> stopping_{false};
  const void* context_ = nullptr;
  void (*call_)(const void*, int, int, int) = nullptr;
  int tasks_ = 0;
};
