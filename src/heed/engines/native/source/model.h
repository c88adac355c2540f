// The model: packed weights, and one forward pass over rows that stand anywhere.
//
// A row is one token of one sequence. Prompt tokens and newly drawn tokens go through the same pass
// side by side, so that weights are read once for both.
#pragma once

#include <algorithm>

#include "layers.h"
#include "product.h"

struct Shape {
  int32_t layers, width, heads, kv_heads, head_size, inner, vocabulary;
  int32_t gated;      // silu(gate) * up; else gelu of one matrix
  int32_t centred;    // LayerNorm; else RMSNorm
  int32_t rotary;     // rotary positions; else learned ones
  int32_t head_norm;  // RMSNorm of every query and key head
  int32_t half;       // weights are bf16
  float eps;
};

enum MatrixName { QKV, ATTENTION_OUT, UP, DOWN, MATRICES };
enum VectorName { NORM_1, NORM_1_BIAS, NORM_2, NORM_2_BIAS, QUERY_NORM, KEY_NORM, VECTORS };

struct Layer {
  Matrix matrices[MATRICES];
  std::vector<float> vectors[VECTORS];
  float scale = 1;  // of attention scores

  Norm norm(VectorName weight, const Shape& shape) const {
    const auto& bias = vectors[weight + 1];
    return {vectors[weight].data(), shape.centred && bias.size() ? bias.data() : nullptr, shape.eps,
            shape.centred != 0};
  }
  Norm head_norm(VectorName weight, const Shape& shape) const {
    return {vectors[weight].data(), nullptr, shape.eps, false};
  }
};

// Keys and values of one sequence, all layers: keys as panels of PANEL positions [head_size][PANEL],
// values as panels of PANEL channels [positions][PANEL]: both are packed matrices as they stand, so
// that attention is two products.
class Cache {
 public:
  Cache() = default;
  Cache(const Shape& shape, int positions)
      : length_(padded(positions)),
        kv_heads_(shape.kv_heads),
        head_((long)shape.head_size * length_),
        value_head_((long)padded(shape.head_size) * length_),
        floats_((size_t)shape.layers * kv_heads_ * (head_ + value_head_)) {}

  // Numbers that it needs, and where they are.
  size_t floats() const { return floats_; }
  void stand_at(float* at) { store_ = at; }

  float* keys(int layer, int head) const {
    return store_ + ((long)layer * kv_heads_ + head) * (head_ + value_head_);
  }
  float* values(int layer, int head) const { return keys(layer, head) + head_; }
  long value_stride() const { return (long)length_ * PANEL; }

  void write(int layer, int head, int position, int head_size, const float* key,
             const float* value) {
    float* k = keys(layer, head) + (long)(position / PANEL) * head_size * PANEL + position % PANEL;
    for (int i = 0; i < head_size; i++) k[(long)i * PANEL] = key[i];
    float* v = values(layer, head) + (long)position * PANEL;
    auto place = [&](int i) { return v + (i / PANEL) * value_stride() + i % PANEL; };
    int i = 0;
    for (; i + LANES <= head_size; i += LANES) store(place(i), load(value + i));
    for (; i < head_size; i++) *place(i) = value[i];
  }

 private:
  int length_ = 0, kv_heads_ = 0;
  long head_ = 0, value_head_ = 0;
  size_t floats_ = 0;
  float* store_ = nullptr;
};

// One token to run: its prompt's cache, its own cache where it was drawn, and where it stands.
struct Row {
  int32_t token;
  int position;
  Cache* prompt;
  int prompt_keys;  // keys of the prompt that it sees, itself included where it belongs to it
  Cache* own;       // null for a token of the prompt
  int own_keys;
  bool wanted;      // whether its logits are
};

class Model {
 public:
  Shape shape{};
  std::vector<Layer> layers;
  Matrix head;
  std::vector<float> final_norm, final_bias;
  const void* embedding = nullptr;           // the module's own [vocabulary, width]
  const void* position_embedding = nullptr;  // [positions, width], or null
  std::vector<float> cosine, sine;           // [positions, head_size / 2]

  // Take a shape: all matrices stand in one piece of memory.
  void resize(const Shape& to) {
    shape = to;
    layers.resize(to.layers);
    const int heads = (to.heads + 2 * to.kv_heads) * to.head_size;
    const int up = to.gated ? 2 * padded(to.inner) : to.inner;
    size_t bytes = 0;
    auto each = [&](auto&& use) {
      for (Layer& layer : layers)
        for (Matrix& matrix : layer.matrices) use(matrix);
      use(head);
    };
    for (Layer& layer : layers) {
      layer.matrices[QKV].shape(heads, to.width, to.half);
      layer.matrices[ATTENTION_OUT].shape(to.width, to.heads * to.head_size, to.half);
      layer.matrices[UP].shape(up, to.width, to.half);
      layer.matrices[DOWN].shape(to.width, to.inner, to.half);
    }
    head.shape(to.vocabulary, to.width, to.half);
    each([&](Matrix& matrix) { bytes += matrix.bytes(); });
    store_.clear();
    store_.reserve(bytes);
    char* at = store_.bytes();
    std::memset(at, 0, bytes);
    each([&](Matrix& matrix) {
      matrix.stand_at(at);
      at += matrix.bytes();
    });
  }

  void embed(const Row& row, float* x) const {
    for (int i = 0; i < shape.width; i++) {
      x[i] = number(embedding, (long)row.token * shape.width + i);
      if (position_embedding) x[i] += number(position_embedding, (long)row.position * shape.width + i);
    }
  }
  Norm last_norm() const {
    return {final_norm.data(), final_bias.size() ? final_bias.data() : nullptr, shape.eps,
            shape.centred != 0};
  }

 private:
  float number(const void* from, long at) const {
    return shape.half ? widen(((const Half*)from)[at]) : ((const float*)from)[at];
  }
  Numbers store_;
};
