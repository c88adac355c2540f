// What stands between the matrix products: norms, activations, rotary positions, softmax.
//
// Rows are independent, statistics are fp32, and every function works on padded rows in place or
// from one buffer to another.
#pragma once

#include "vectors.h"

constexpr float NO_SCORE = -3.0e38f;

struct Norm {
  const float* weight = nullptr;
  const float* bias = nullptr;  // LayerNorm has one, RMSNorm none
  float eps = 0;
  bool centred = false;         // LayerNorm subtracts the mean
};

// Sum of a function of whole vectors of a row; `size` may end within a vector.
template <class Term>
static inline float sum_of(const float* x, int size, const Term& term) {
  Vec total{};
  int i = 0;
  for (; i + LANES <= size; i += LANES) total += term(load(x + i));
  float sum = sum_lanes(total);
  for (; i < size; i++) sum += term(splat(x[i]))[0];
  return sum;
}

// y = (x - mean) / sqrt(variance + eps) * weight + bias; RMSNorm leaves out mean and bias. y may be x.
static inline void normalise(const float* x, const Norm& norm, int size, float* y) {
  float mean = 0;
  if (norm.centred) mean = sum_of(x, size, [](Vec v) { return v; }) / (float)size;
  const Vec centre = splat(mean);
  const float squares = sum_of(x, size, [&](Vec v) { return (v - centre) * (v - centre); });
  const float scale = 1.0f / std::sqrt(squares / (float)size + norm.eps);
  int i = 0;
  for (; i + LANES <= size; i += LANES) {
    Vec value = (load(x + i) - centre) * splat(scale) * load(norm.weight + i);
    store(y + i, norm.bias ? value + load(norm.bias + i) : value);
  }
  for (; i < size; i++) {
    float value = (x[i] - mean) * scale * norm.weight[i];
    y[i] = norm.bias ? value + norm.bias[i] : value;
  }
}

// x / (1 + e^-x) * up, whole vectors.
static inline void gated_silu(const float* gate, const float* up, int size, float* y) {
  const Vec one = splat(1.0f);
  for (int i = 0; i < size; i += LANES) {
    Vec x = load(gate + i);
    store(y + i, x / (one + exponential(-x)) * load(up + i));
  }
}

// GPT-2's gelu: x/2 (1 + tanh(u)) with u = sqrt(2/pi) (x + 0.044715 x^3), which is x / (1 + e^-2u).
static inline void gelu_tanh(const float* from, int size, float* y) {
  const Vec one = splat(1.0f), outer = splat(-2.0f * 0.7978845608f), inner = splat(0.044715f);
  for (int i = 0; i < size; i += LANES) {
    Vec x = load(from + i);
    store(y + i, x / (one + exponential(outer * (x + inner * x * x * x))));
  }
}

// Rotate the two halves of one head, and scale: (a, b) -> (a cos - b sin, b cos + a sin).
static inline void rotate(float* head, const float* cosine, const float* sine, int half) {
  for (int i = 0; i < half; i++) {
    const float a = head[i], b = head[i + half];
    head[i] = a * cosine[i] - b * sine[i];
    head[i + half] = b * cosine[i] + a * sine[i];
  }
}

// Scores of one query, in segments whose valid keys are followed by padding, become e^(score - most),
// 0 in the padding; returns 1 / their sum.
struct Segment {
  float* scores;
  int keys;
};
static inline float soften(const Segment* segments, int count) {
  Vec most = splat(NO_SCORE);
  for (int s = 0; s < count; s++) {
    float* at = segments[s].scores;
    const int end = padded(segments[s].keys);
    for (int i = segments[s].keys; i < end; i++) at[i] = NO_SCORE;
    for (int i = 0; i < end; i += LANES) most = larger(load(at + i), most);
  }
  const Vec largest = splat(max_lanes(most));
  Vec total{};
  for (int s = 0; s < count; s++) {
    float* at = segments[s].scores;
    for (int i = 0; i < padded(segments[s].keys); i += LANES) {
      Vec mass = exponential(load(at + i) - largest);
      store(at + i, mass);
      total += mass;
    }
  }
  return 1.0f / sum_lanes(total);
}
