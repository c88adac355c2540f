// The processor's vectors, written once for AVX-512, AVX2, NEON and plain C++.
//
// GCC's and Clang's vector extension gives every target the same source; what is native to the
// target is only the number of lanes. Nothing here may be compiled with -ffast-math: it would let
// the compiler reorder sums, on which the promise rests that a row's bits depend on that row alone.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float Vec __attribute__((vector_size(LANES * 4)));
typedef int32_t Ints __attribute__((vector_size(LANES * 4)));
typedef float LooseVec __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t LooseWord __attribute__((may_alias));
typedef int32_t LooseInts __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

static inline Vec load(const float* p) { return *(const LooseVec*)p; }
static inline void store(float* p, Vec v) { *(LooseVec*)p = v; }
static inline Ints load_ints(const void* p) { return *(const LooseInts*)p; }
static inline Vec splat(float x) { return x - Vec{}; }
static inline Ints splat_int(int32_t x) { return x - Ints{}; }
static inline Vec as_floats(Ints bits) {
  Vec value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
static inline Vec larger(Vec a, Vec b) { return a > b ? a : b; }

// Sum and maximum over the lanes, always in the same order.
static inline float sum_lanes(Vec v) {
  float total = 0;
  for (int i = 0; i < LANES; i++) total += v[i];
  return total;
}
static inline float max_lanes(Vec v) {
  float most = v[0];
  for (int i = 1; i < LANES; i++) most = v[i] > most ? v[i] : most;
  return most;
}

// Sizes are rounded up to whole panels, so that no loop needs a tail.
constexpr int PANEL = 2 * LANES;
static inline int padded(int n) { return (n + PANEL - 1) / PANEL * PANEL; }

// e^x to about 1 ulp: x = n ln 2 + r, a polynomial in r (Cephes), the exponent bits of 2^n.
// Below -87.3 it is 0 (no denormals); NaN stays NaN.
static inline Vec exponential(Vec x) {
  const Vec low = splat(-87.3f), high = splat(88.0f);
  Vec c = x < low ? low : x;
  c = c > high ? high : c;
  const Vec rounder = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
  Vec n = (c * splat(1.44269504f) + rounder) - rounder;
  Vec r = c - n * splat(0.693359375f);
  r = r - n * splat(-2.12194440e-4f);
  Vec p = splat(1.9875691500e-4f);
  p = p * r + splat(1.3981999507e-3f);
  p = p * r + splat(8.3334519073e-3f);
  p = p * r + splat(4.1665795894e-2f);
  p = p * r + splat(1.6666665459e-1f);
  p = p * r + splat(5.0000001201e-1f);
  Vec y = p * r * r + r + splat(1.0f);
  y = y * as_floats((__builtin_convertvector(n, Ints) + splat_int(127)) << 23);
  return x < low ? Vec{} : y;
}

// bf16 is the upper half of an fp32 number.
typedef uint16_t Half;
static inline float widen(Half h) {
  uint32_t bits = (uint32_t)h << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
// Round to nearest, ties to even; NaN stays NaN.
static inline Half narrow(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if ((bits & 0x7fffffff) > 0x7f800000) return (Half)((bits >> 16) | 0x40);
  return (Half)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
