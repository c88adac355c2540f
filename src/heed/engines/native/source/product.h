// Matrix products Y = X W^T with weights packed once, and the kernels under them.
//
// A packed matrix is a row of panels; a panel holds PANEL outputs as [inputs][PANEL], so that one
// step along the inputs reads whole vectors, and each of them is used for up to MOST_ROWS rows of X
// from registers. An output is one sum over the inputs in their order, whatever the tile that it is
// computed in: the rows beside a row never change its bits.
//
// bf16 weights lie in pairs of inputs, [inputs / 2][PANEL][2], and become fp32 in registers: one
// shift and one mask for two vectors. Half the memory is read, X stays fp32, and nothing but the
// weights is rounded. (Intel's own bf16 product, vdpbf16ps, runs at half the rate of these fp32
// products.)
#pragma once

#include <array>
#include <cstdlib>
#include <new>
#include <utility>

#include "threads.h"
#include "vectors.h"

// Registers decide the tile: 32 of them hold 12 rows of one panel, 16 hold 6. Few rows take several
// panels at once instead, because a multiply-add takes 4 cycles and 8 of them must be under way.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int MOST_ROWS = 12, FEW_ROWS = 3, WIDE = 4;
#else
constexpr int MOST_ROWS = 6, FEW_ROWS = 2, WIDE = 3;
#endif

// What is stored beside the sum: a bias, and what stood there before.
struct Ending {
  const float* bias = nullptr;
  bool add = false;
};

template <int ROWS, int VECTORS>
static inline void finish_tile(Vec (&sums)[ROWS][VECTORS], float* y, long y_stride, Ending ending) {
  UNROLL for (int i = 0; i < ROWS; i++) {
    UNROLL for (int v = 0; v < VECTORS; v++) {
      Vec value = sums[i][v];
      float* at = y + i * y_stride + v * LANES;
      if (ending.bias) value = value + load(ending.bias + v * LANES);
      if (ending.add) value = value + load(at);
      store(at, value);
    }
  }
}

// ROWS rows of X times PANELS panels whose bytes lie `stride` numbers apart.
template <int ROWS, int PANELS>
static void tile_fp32(const float* x, long x_stride, const void* panels, long stride, int inputs,
                      float* y, long y_stride, Ending ending) {
  const float* w = (const float*)panels;
  Vec sums[ROWS][2 * PANELS] = {};
  for (int k = 0; k < inputs; k++) {
    Vec weights[2 * PANELS];
    UNROLL for (int p = 0; p < PANELS; p++) {
      weights[2 * p] = load(w + p * stride + (long)k * PANEL);
      weights[2 * p + 1] = load(w + p * stride + (long)k * PANEL + LANES);
    }
    UNROLL for (int i = 0; i < ROWS; i++) {
      Vec value = splat(x[i * x_stride + k]);
      UNROLL for (int v = 0; v < 2 * PANELS; v++) sums[i][v] += value * weights[v];
    }
  }
  finish_tile<ROWS, 2 * PANELS>(sums, y, y_stride, ending);
}

template <int ROWS, int PANELS>
static void tile_bf16(const float* x, long x_stride, const void* panels, long stride, int inputs,
                      float* y, long y_stride, Ending ending) {
  const Half* w = (const Half*)panels;
  Vec sums[ROWS][2 * PANELS] = {};
  for (int k = 0; k < inputs; k += 2) {
    Vec even[2 * PANELS], odd[2 * PANELS];
    UNROLL for (int v = 0; v < 2 * PANELS; v++) {
      Ints pairs = load_ints(w + (v / 2) * stride + (long)k * PANEL + (v % 2) * 2 * LANES);
      even[v] = as_floats(pairs << 16);
      odd[v] = as_floats(pairs & splat_int((int32_t)0xffff0000));
    }
    UNROLL for (int i = 0; i < ROWS; i++) {
      Vec first = splat(x[i * x_stride + k]), second = splat(x[i * x_stride + k + 1]);
      UNROLL for (int v = 0; v < 2 * PANELS; v++) {
        sums[i][v] += first * even[v];
        sums[i][v] += second * odd[v];
      }
    }
  }
  finish_tile<ROWS, 2 * PANELS>(sums, y, y_stride, ending);
}

using Tile = void (*)(const float*, long, const void*, long, int, float*, long, Ending);

template <int PANELS, int... I>
static constexpr auto tiles_of(std::integer_sequence<int, I...>) {
  return std::array<std::array<Tile, sizeof...(I)>, 2>{
      {{&tile_fp32<I + 1, PANELS>...}, {&tile_bf16<I + 1, PANELS>...}}};
}
// [half][rows - 1]
static constexpr auto NARROW_TILES = tiles_of<1>(std::make_integer_sequence<int, MOST_ROWS>{});
static constexpr auto WIDE_TILES = tiles_of<WIDE>(std::make_integer_sequence<int, FEW_ROWS>{});

// Rows split into tiles of nearly equal height.
struct Tiling {
  int rows, count;
  explicit Tiling(int rows_) : rows(rows_), count((rows_ + MOST_ROWS - 1) / MOST_ROWS) {}
  int first(int tile) const { return (int)((long)rows * tile / count); }
  int height(int tile) const { return first(tile + 1) - first(tile); }
};

// Panels first..last for all rows; panels are `stride` numbers apart, and rows of Y are padded.
static inline void multiply_panels(const float* x, long x_stride, int rows, const void* w, long stride,
                                   int inputs, bool half, int first, int last, float* y,
                                   long y_stride, Ending ending) {
  const long bytes = stride * (half ? 2 : 4);
  auto panels_at = [&](int panel) { return (const void*)((const char*)w + panel * bytes); };
  auto ending_at = [&](int panel) {
    return Ending{ending.bias ? ending.bias + (long)panel * PANEL : nullptr, ending.add};
  };
  if (rows <= FEW_ROWS) {
    for (; first + WIDE <= last; first += WIDE)
      WIDE_TILES[half][rows - 1](x, x_stride, panels_at(first), stride, inputs,
                                 y + (long)first * PANEL, y_stride, ending_at(first));
  }
  const Tiling tiling(rows);
  for (int panel = first; panel < last; panel++) {
    for (int t = 0; t < tiling.count; t++) {
      const long row = tiling.first(t);
      NARROW_TILES[half][tiling.height(t) - 1](x + row * x_stride, x_stride, panels_at(panel), stride,
                                               inputs, y + row * y_stride + (long)panel * PANEL,
                                               y_stride, ending_at(panel));
    }
  }
}

// Memory for vectors: aligned to a cache line, zeroed.
class Numbers {
 public:
  Numbers() = default;
  Numbers(const Numbers&) = delete;
  Numbers& operator=(const Numbers&) = delete;
  Numbers(Numbers&& other) noexcept { std::swap(at_, other.at_), std::swap(bytes_, other.bytes_); }
  Numbers& operator=(Numbers&& other) noexcept {
    std::swap(at_, other.at_), std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Numbers() { std::free(at_); }
  // At least so many bytes; what was there is lost unless it was large enough.
  void reserve(size_t bytes) {
    if (bytes <= bytes_) return;
    std::free(at_);
    bytes_ = 0;
    bytes = (bytes + 63) / 64 * 64;
    at_ = std::aligned_alloc(64, bytes);
    if (!at_) throw std::bad_alloc();
    bytes_ = bytes;
    std::memset(at_, 0, bytes);
  }
  void clear() {
    std::free(at_);
    at_ = nullptr;
    bytes_ = 0;
  }
  float* floats() const { return (float*)at_; }
  Half* halves() const { return (Half*)at_; }
  void* get() const { return at_; }

 private:
  void* at_ = nullptr;
  size_t bytes_ = 0;
};

// A weight matrix, packed; several matrices that read the same rows lie side by side in one.
class Matrix {
 public:
  int outputs() const { return outputs_; }
  int width() const { return padded(outputs_); }  // numbers in a row of Y

  void shape(int outputs, int inputs, bool half) {
    outputs_ = outputs, inputs_ = inputs, half_ = half;
    // An odd number of inputs is filled up by a zero row, which meets the padding of X.
    stride_ = (long)(half ? (inputs + 1) / 2 * 2 : inputs) * PANEL;
    store_.reserve((size_t)(width() / PANEL) * stride_ * (half ? 2 : 4));
    bias_.reserve((size_t)width() * 4);
    has_bias_ = false;
  }

  // Outputs first..first+count from `source`: [count, inputs], or [inputs, count] if transposed.
  template <class Number>
  void pack(const Number* source, int first, int count, bool transposed) {
    constexpr int BLOCK = 16;
    const long output_step = transposed ? 1 : inputs_, input_step = transposed ? count : 1;
    for (int k0 = 0; k0 < inputs_; k0 += BLOCK) {
      const int k1 = k0 + BLOCK < inputs_ ? k0 + BLOCK : inputs_;
      for (int n = 0; n < count; n++) {
        const int output = first + n, lane = output % PANEL;
        const long panel = (long)(output / PANEL) * stride_;
        const Number* from = source + n * output_step;
        for (int k = k0; k < k1; k++) put(panel, k, lane, from[k * input_step]);
      }
    }
  }
  template <class Number>
  void pack_bias(const Number* source, int first, int count) {
    has_bias_ = true;
    for (int n = 0; n < count; n++) bias_.floats()[first + n] = as_float(source[n]);
  }

  // Y [rows, width] = X [rows, inputs] W^T + bias, added to Y if `add`.
  void multiply(Pool& pool, const float* x, long x_stride, int rows, float* y, long y_stride,
                bool add = false) const {
    const Ending ending{has_bias_ ? bias_.floats() : nullptr, add};
    pool.run(width() / PANEL, [&](int first, int last, int) {
      multiply_panels(x, x_stride, rows, store_.get(), stride_, inputs_, half_, first, last, y,
                      y_stride, ending);
    });
  }

 private:
  static float as_float(float value) { return value; }
  static float as_float(Half value) { return widen(value); }
  void put(long panel, int k, int lane, float value) {
    store_.floats()[panel + (long)k * PANEL + lane] = value;
  }
  void put(long panel, int k, int lane, Half value) {
    store_.halves()[panel + (long)(k / 2) * 2 * PANEL + 2 * lane + k % 2] = value;
  }

  int outputs_ = 0, inputs_ = 0;
  long stride_ = 0;
  bool half_ = false, has_bias_ = false;
  Numbers store_, bias_;
};
