// From logits to a token, as heed/engines/sampling.py does: temperature, top-k, top-p, one uniform
// number a token, and the log-probability under the distribution drawn from.
//
// Cumulative sums are over the ids in their order, or over the kept ids from the likeliest on, and
// the token drawn is the first whose cumulative mass exceeds number * total.
#pragma once

#include <algorithm>
#include <cfloat>
#include <vector>

#include "vectors.h"

struct Sampling {
  float temperature, top_p;
  int32_t top_k;
};

struct Drawn {
  int32_t token = 0;
  float logprob = 0;
  bool finite = true;
};

// Buffers of one thread.
struct DrawScratch {
  std::vector<float> scores, masses;
  std::vector<int32_t> ids;
  std::vector<double> blocks;
};

class Drawer {
 public:
  Drawer(const float* logits, int size, const Sampling& how, DrawScratch& scratch)
      : size_(size), how_(how), scratch_(scratch) {
    temper(logits);
  }

  // Draw with `number` in 0..1; `kept` receives the ids that could have been drawn, where some
  // could not. Without a temperature the likeliest id is taken.
  Drawn draw(float number, std::vector<int32_t>* kept) {
    if (!finite_) return {0, 0, false};
    if (how_.temperature == 0) return greedy();
    if (how_.top_k > 0 && how_.top_k < size_) {
      take_likeliest();
    } else if (how_.top_p < 1) {
      take_nucleus();
    } else {
      return whole(number);
    }
    return among_kept(number, kept);
  }

 private:
  static constexpr int BLOCK = 128;

  // Scores = logits / temperature, filled up by -infinity; most_ and finite_.
  void temper(const float* logits) {
    const int end = (size_ + BLOCK - 1) / BLOCK * BLOCK;
    auto& scores = scratch_.scores;
    if ((int)scores.size() < end) scores.resize(end), scratch_.masses.resize(end);
    const Vec most_finite = splat(FLT_MAX);
    const bool divide = how_.temperature != 0 && how_.temperature != 1;
    const Vec by = splat(divide ? how_.temperature : 1);
    Vec most = splat(-INFINITY);
    Ints bad{};
    int i = 0;
    for (; i + LANES <= size_; i += LANES) {
      Vec value = load(logits + i);
      bad |= ~(Ints)(value <= most_finite);  // true for NaN and +infinity
      if (divide) value = value / by;
      most = larger(value, most);
      store(&scores[i], value);
    }
    most_ = max_lanes(most);
    finite_ = true;
    for (int lane = 0; lane < LANES; lane++) finite_ &= bad[lane] == 0;
    for (; i < size_; i++) {
      finite_ &= logits[i] <= FLT_MAX;
      scores[i] = divide ? logits[i] / how_.temperature : logits[i];
      most_ = std::max(most_, scores[i]);
    }
    std::fill(scores.begin() + size_, scores.begin() + end, -INFINITY);
    finite_ &= most_ >= -FLT_MAX;
  }

  // Masses e^(score - most) of all ids, and their sums by blocks; returns the total.
  double weigh() {
    const Vec most = splat(most_);
    const int blocks = (size_ + BLOCK - 1) / BLOCK;
    scratch_.blocks.resize(blocks);
    double total = 0;
    for (int b = 0; b < blocks; b++) {
      Vec sum{};
      for (int i = b * BLOCK; i < (b + 1) * BLOCK; i += LANES) {
        Vec mass = exponential(load(&scratch_.scores[i]) - most);
        store(&scratch_.masses[i], mass);
        sum += mass;
      }
      scratch_.blocks[b] = sum_lanes(sum);
      total += scratch_.blocks[b];
    }
    return total;
  }

  Drawn greedy() {
    const double total = weigh();
    int token = 0;
    while (scratch_.scores[token] != most_) token++;
    return {token, -std::log((float)total), true};
  }

  // Strictly below the total: rounding up to it would pick a last token of probability 0.
  static float target(float number, float total) {
    return std::min(number * total, std::nextafter(total, 0.0f));
  }

  Drawn whole(float number) {
    const float total = (float)weigh();
    const float at = target(number, total);
    const int blocks = (int)scratch_.blocks.size();
    int block = 0;
    double before = 0;
    while (block + 1 < blocks && (float)(before + scratch_.blocks[block]) <= at)
      before += scratch_.blocks[block++];
    int token = -1;
    // Rounding may put the mark behind a block's last mass: its last id of any mass is then drawn.
    const int end = std::min(size_, (block + 1) * BLOCK);
    for (int i = block * BLOCK; i < end; i++) {
      if (scratch_.masses[i] == 0) continue;
      token = i;
      before += scratch_.masses[i];
      if ((float)before > at) break;
    }
    while (token < 0) token = last_of(--block);
    return {token, scratch_.scores[token] - most_ - std::log(total), true};
  }
  int last_of(int block) const {
    for (int i = (block + 1) * BLOCK - 1; i >= block * BLOCK; i--)
      if (i < size_ && scratch_.masses[i] > 0) return i;
    return -1;
  }

  // Likelier first; of equals the lower id first.
  bool before(int32_t a, int32_t b) const {
    const float x = scratch_.scores[a], y = scratch_.scores[b];
    return x > y || (x == y && a < b);
  }
  void sort_ids(size_t count) {
    auto& ids = scratch_.ids;
    auto order = [this](int32_t a, int32_t b) { return before(a, b); };
    if (count < ids.size()) std::nth_element(ids.begin(), ids.begin() + count, ids.end(), order);
    ids.resize(count);
    std::sort(ids.begin(), ids.end(), order);
  }
  void all_ids() {
    scratch_.ids.resize(size_);
    for (int i = 0; i < size_; i++) scratch_.ids[i] = i;
  }

  void take_likeliest() {
    weigh();
    all_ids();
    sort_ids(how_.top_k);
    float total = 0;
    for (int32_t id : scratch_.ids) total += mass(id);
    if (how_.top_p < 1) cut(total);
  }

  // The ids that top-p leaves are found without sorting all: masses are counted by their exponents
  // from the top until they reach top_p, and only ids above that line are sorted.
  void take_nucleus() {
    const double total = weigh();
    constexpr int BINS = 512;  // sign 0, eight bits of exponent, one of mantissa
    double bins[BINS] = {};
    for (int i = 0; i < size_; i++) bins[bin(scratch_.masses[i])] += scratch_.masses[i];
    double sum = 0;
    int line = BINS - 1;
    while (line > 0 && (sum += bins[line]) < (how_.top_p + 1e-4) * total) line--;
    scratch_.ids.clear();
    for (int i = 0; i < size_; i++)
      if (bin(scratch_.masses[i]) >= line) scratch_.ids.push_back(i);
    sort_ids(scratch_.ids.size());
    cut((float)total);
  }
  static int bin(float mass) {
    uint32_t bits;
    std::memcpy(&bits, &mass, 4);
    return (int)(bits >> 22);
  }

  // Keep ids while the probability before them is below top_p.
  void cut(float total) {
    double sum = 0;
    size_t kept = 0;
    for (int32_t id : scratch_.ids) {
      const float share = mass(id) / total;
      sum += share;
      if ((float)sum - share >= how_.top_p) break;
      kept++;
    }
    scratch_.ids.resize(kept);
  }

  float mass(int32_t id) const { return scratch_.masses[id]; }

  Drawn among_kept(float number, std::vector<int32_t>* kept) {
    double sum = 0;
    for (int32_t id : scratch_.ids) sum += mass(id);
    const float total = (float)sum, at = target(number, total);
    int32_t token = scratch_.ids.front();
    sum = 0;
    for (int32_t id : scratch_.ids) {
      if (mass(id) == 0) break;
      token = id;
      if ((float)(sum += mass(id)) > at) break;
    }
    if (kept) kept->insert(kept->end(), scratch_.ids.begin(), scratch_.ids.end());
    return {token, scratch_.scores[token] - most_ - std::log(total), true};
  }

  int size_;
  const Sampling& how_;
  DrawScratch& scratch_;
  float most_ = 0;
  bool finite_ = true;
};
