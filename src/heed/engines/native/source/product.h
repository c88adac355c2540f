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
//
// While decoding, every weight is read once a step and used for all rows at once, so the kernels ask
// for the next panel while they work on this one, and the weights stand in large pages.
#pragma once

#include <array>
#include <utility>

#include "memory.h"
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

// ROWS rows of X times PANELS panels that lie `stride` numbers apart. `soon` is where memory will be
// read next: half a panel from there on is fetched into the cache meanwhile.
template <int ROWS, int PANELS>
static void tile_fp32(const float* x, long x_stride, const void* panels, long stride, int inputs,
                      float* y, long y_stride, Ending ending, const char* soon) {
  const float* w = (const float*)panels;
  Vec sums[ROWS][2 * PANELS] = {};
  for (int k = 0; k < inputs; k++) {
    __builtin_prefetch(soon + (long)k * (PANEL * 2), 0, 2);
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
                      float* y, long y_stride, Ending ending, const char* soon) {
  const Half* w = (const Half*)panels;
  Vec sums[ROWS][2 * PANELS] = {};
  for (int k = 0; k < inputs; k += 2) {
    __builtin_prefetch(soon + (long)k * PANEL, 0, 2);
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

using Tile = void (*)(const float*, long, const void*, long, int, float*, long, Ending,
                      const char*);

template <int PANELS, int... I>
static constexpr auto tiles_of(std::integer_sequence<int, I...>) {
  return std::array<std::array<Tile, sizeof...(I)>, 2>{
      {{&tile_fp32<I + 1, PANELS>...}, {&tile_bf16<I + 1, PANELS>...}}};
}
// [half][rows - 1]
static constexpr auto NARROW_TILES = tiles_of<1>(std::make_integer_sequence<int, MOST_ROWS>{});
static constexpr auto PAIR_TILES = tiles_of<2>(std::make_integer_sequence<int, FEW_ROWS>{});
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
  auto panels_at = [&](int panel) { return (const char*)w + panel * bytes; };
  auto ending_at = [&](int panel) {
    return Ending{ending.bias ? ending.bias + (long)panel * PANEL : nullptr, ending.add};
  };
  if (rows <= FEW_ROWS) {
    auto several = [&](Tile tile, int panels) {
      for (; first + panels <= last; first += panels)
        tile(x, x_stride, panels_at(first), stride, inputs, y + (long)first * PANEL, y_stride,
             ending_at(first), panels_at(first + panels));
    };
    several(WIDE_TILES[half][rows - 1], WIDE);
    several(PAIR_TILES[half][rows - 1], 2);
  }
  const Tiling tiling(rows);
  for (int panel = first; panel < last; panel++) {
    for (int t = 0; t < tiling.count; t++) {
      const long row = tiling.first(t);
      const char* soon = panels_at(panel + 1) + (t % 2) * (bytes / 2);
      NARROW_TILES[half][tiling.height(t) - 1](x + row * x_stride, x_stride, panels_at(panel), stride,
                                               inputs, y + row * y_stride + (long)panel * PANEL,
                                               y_stride, ending_at(panel), soon);
    }
  }
}

// A weight matrix, packed; several matrices that read the same rows lie side by side in one.
class Matrix {
 public:
  int outputs() const { return outputs_; }
  int width() const { return padded(outputs_); }  // numbers in a row of Y

  void shape(int outputs, int inputs, bool half) {
    outputs_ = outputs, inputs_ = inputs, half_ = half;
    stride_ = (long)inputs * PANEL;
    bias_.clear();
  }
  // Bytes that it needs, and where they are; zeroed, because padded outputs are never packed.
  size_t bytes() const { return (size_t)(width() / PANEL) * stride_ * (half_ ? 2 : 4); }
  void stand_at(char* at) { store_ = at; }

  // Outputs first..first+count from `source`: [count, inputs], or [inputs, count] if transposed.
  void pack(const float* source, int first, int count, bool transposed) {
    if (transposed) spread((const LooseWord*)source, first, count, inputs_, 1, count);
    else spread((const LooseWord*)source, first, count, inputs_, inputs_, 1);
  }
  // Two bf16 inputs that lie together move as one word.
  void pack(const Half* source, int first, int count, bool transposed) {
    if (!transposed) {
      spread((const LooseWord*)source, first, count, inputs_ / 2, inputs_ / 2, 1);
      return;
    }
    for (int k = 0; k < inputs_; k++)
      for (int n = 0; n < count; n++)
        ((Half*)word(first + n, k / 2))[k % 2] = source[(long)k * count + n];
  }
  template <class Number>
  void pack_bias(const Number* source, int first, int count) {
    if (bias_.empty()) bias_.resize(width());
    for (int n = 0; n < count; n++) bias_[first + n] = as_float(source[n]);
  }

  // Y [rows, width] = X [rows, inputs] W^T + bias, added to Y if `add`.
  void multiply(Pool& pool, const float* x, long x_stride, int rows, float* y, long y_stride,
                bool add = false) const {
    const Ending ending{bias_.empty() ? nullptr : bias_.data(), add};
    pool.run(width() / PANEL, [&](int first, int last, int) {
      multiply_panels(x, x_stride, rows, store_, stride_, inputs_, half_, first, last, y,
                      y_stride, ending);
    });
  }

 private:
  static float as_float(float value) { return value; }
  static float as_float(Half value) { return widen(value); }
  // Words of 32 bits: word k of an output, and all words of some outputs from a source of any order.
  LooseWord* word(int output, int k) const {
    const long panel = (long)(output / PANEL) * (stride_ / (half_ ? 2 : 1));
    return (LooseWord*)store_ + panel + (long)k * PANEL + output % PANEL;
  }
  void spread(const LooseWord* source, int first, int count, int words, long output_step,
              long word_step) {
    constexpr int BLOCK = 16;  // words in a cache line
    for (int n0 = 0; n0 < count; n0 += PANEL) {
      const int n1 = n0 + PANEL < count ? n0 + PANEL : count;
      for (int k0 = 0; k0 < words; k0 += BLOCK) {
        const int k1 = k0 + BLOCK < words ? k0 + BLOCK : words;
        for (int n = n0; n < n1; n++) {
          const LooseWord* from = source + n * output_step;
          LooseWord* to = word(first + n, 0);
          for (int k = k0; k < k1; k++) to[(long)k * PANEL] = from[k * word_step];
        }
      }
    }
  }

  int outputs_ = 0, inputs_ = 0;
  long stride_ = 0;
  bool half_ = false;
  char* store_ = nullptr;
  std::vector<float> bias_;
};
