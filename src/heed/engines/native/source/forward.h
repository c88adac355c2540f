// One forward pass over rows: buffers, layers, attention.
#pragma once

#include "model.h"

class Forward {
 public:
  Forward(const Model& model, Pool& pool) : model_(model), pool_(pool), scratch_(pool.count()) {}

  // Logits [wanted rows, stride] of the rows that are wanted, in their order.
  const float* run(const Row* rows, int count) {
    const Shape& shape = model_.shape;
    make_room(count);
    pool_.run(count, [&](int first, int last, int) {
      for (int i = first; i < last; i++) model_.embed(rows[i], x_.floats() + i * x_stride_);
    });
    active_.assign(rows, rows + count);
    for (int l = 0; l < shape.layers; l++) layer(l, l + 1 == shape.layers);
    const int left = (int)active_.size();
    if (!left) return nullptr;
    const Norm norm = model_.last_norm();
    each_row([&](int i) {
      normalise(x_.floats() + i * x_stride_, norm, shape.width, h_.floats() + i * h_stride_);
    });
    logits_.reserve(sizeof(float) * (size_t)left * logits_stride());
    model_.head.multiply(pool_, h_.floats(), h_stride_, left, logits_.floats(), logits_stride());
    return logits_.floats();
  }
  // Rows lie a cache line more than their size apart: at a power of two they would compete for the
  // same lines of the cache.
  long logits_stride() const { return model_.head.width() + LANES; }

 private:
  struct Scratch {
    std::vector<float> queries, scores, out, inverse;
  };

  template <class Body>
  void each_row(const Body& body) {
    pool_.run((int)active_.size(), [&](int first, int last, int) {
      for (int i = first; i < last; i++) body(i);
    });
  }

  void make_room(int count) {
    const Shape& shape = model_.shape;
    const int qkv = padded((shape.heads + 2 * shape.kv_heads) * shape.head_size);
    const int up = padded(shape.gated ? 2 * inner() : shape.inner);
    const int hidden = std::max({padded(shape.width), padded(shape.inner),
                                 padded(shape.heads * shape.head_size)});
    x_stride_ = padded(shape.width) + LANES;
    h_stride_ = hidden + LANES;
    y_stride_ = std::max(qkv, up) + LANES;
    x_.reserve(sizeof(float) * (size_t)count * x_stride_);
    h_.reserve(sizeof(float) * (size_t)count * h_stride_);
    y_.reserve(sizeof(float) * (size_t)count * y_stride_);
  }
  // Gate and up lie side by side, each padded.
  int inner() const { return padded(model_.shape.inner); }

  void layer(int l, bool last) {
    const Shape& shape = model_.shape;
    const Layer& layer = model_.layers[l];
    const Norm first = layer.norm(NORM_1, shape), second = layer.norm(NORM_2, shape);
    each_row([&](int i) {
      normalise(x_.floats() + i * x_stride_, first, shape.width, h_.floats() + i * h_stride_);
    });
    product(layer.matrices[QKV], y_);
    each_row([&](int i) { place(l, layer, i); });
    // Above its keys and values, the last layer serves the rows alone whose logits are wanted.
    if (last) keep_wanted();
    attend(l);
    product(layer.matrices[ATTENTION_OUT], x_, true);
    each_row([&](int i) {
      normalise(x_.floats() + i * x_stride_, second, shape.width, h_.floats() + i * h_stride_);
    });
    product(layer.matrices[UP], y_);
    each_row([&](int i) {
      const float* y = y_.floats() + i * y_stride_;
      float* h = h_.floats() + i * h_stride_;
      if (shape.gated) gated_silu(y, y + inner(), inner(), h);
      else gelu_tanh(y, padded(shape.inner), h);
    });
    product(layer.matrices[DOWN], x_, true);
  }

  void product(const Matrix& matrix, Numbers& out, bool add = false) {
    matrix.multiply(pool_, h_.floats(), h_stride_, (int)active_.size(), out.floats(),
                    &out == &x_ ? x_stride_ : y_stride_, add);
  }

  // Norm, rotation and scale of a row's queries and keys; keys and values go to its cache.
  void place(int l, const Layer& layer, int i) {
    const Shape& shape = model_.shape;
    const Row& row = active_[i];
    const int size = shape.head_size, half = size / 2, heads = shape.heads, kv = shape.kv_heads;
    float* y = y_.floats() + i * y_stride_;
    for (int head = 0; head < heads + kv; head++) {
      float* at = y + head * size;
      if (shape.head_norm) {
        const auto name = head < heads ? QUERY_NORM : KEY_NORM;
        normalise(at, layer.head_norm(name, shape), size, at);
      }
      if (shape.rotary) {
        const long where = (long)row.position * half;
        rotate(at, &model_.cosine[where], &model_.sine[where], half);
      }
      if (head < heads)
        for (int j = 0; j < size; j++) at[j] *= layer.scale;
    }
    Cache& cache = row.own ? *row.own : *row.prompt;
    const int position = row.own ? row.own_keys - 1 : row.prompt_keys - 1;
    for (int head = 0; head < kv; head++)
      cache.write(l, head, position, size, y + (heads + head) * size,
                  y + (heads + kv + head) * size);
  }

  void keep_wanted() {
    size_t kept = 0;
    for (size_t i = 0; i < active_.size(); i++) {
      if (!active_[i].wanted) continue;
      if (kept < i) {
        active_[kept] = active_[i];
        std::memcpy(x_.floats() + kept * x_stride_, x_.floats() + i * x_stride_,
                    sizeof(float) * x_stride_);
        std::memcpy(y_.floats() + kept * y_stride_, y_.floats() + i * y_stride_,
                    sizeof(float) * y_stride_);
      }
      kept++;
    }
    active_.resize(kept);
  }

  // Attention by bundles: neighbouring rows of one prompt, whose queries read its keys together.
  void attend(int l) {
    const Shape& shape = model_.shape;
    const int group = shape.heads / shape.kv_heads;
    const int most = std::max(1, 2 * MOST_ROWS / group);
    bundles_.clear();
    const int count = (int)active_.size();
    for (int i = 0; i < count;) {
      int end = i + 1;
      while (end < count && end - i < most && active_[end].prompt == active_[i].prompt) end++;
      bundles_.push_back({i, end});
      i = end;
    }
    const int num = (int)bundles_.size();
    pool_.run(num * shape.kv_heads, [&](int first, int last, int thread) {
      for (int task = first; task < last; task++) {
        const auto& [from, to] = bundles_[task % num];
        attend_bundle(l, task / num, from, to, scratch_[thread]);
      }
    });
  }

  void attend_bundle(int l, int kv_head, int from, int to, Scratch& scratch) {
    const Shape& shape = model_.shape;
    const int group = shape.heads / shape.kv_heads, size = shape.head_size, wide = padded(size);
    const int queries = (to - from) * group;
    int shared = 0, most_own = 0;
    for (int i = from; i < to; i++) {
      shared = std::max(shared, active_[i].prompt_keys);
      most_own = std::max(most_own, active_[i].own_keys);
    }
    const long row_size = padded(shared) + padded(most_own) + LANES;
    fit(scratch.queries, (size_t)queries * size);
    fit(scratch.scores, (size_t)queries * row_size);
    fit(scratch.out, (size_t)queries * wide);
    fit(scratch.inverse, (size_t)queries);
    float *q = scratch.queries.data(), *scores = scratch.scores.data(), *out = scratch.out.data();
    for (int i = from; i < to; i++)
      std::memcpy(q + (long)(i - from) * group * size,
                  y_.floats() + i * y_stride_ + (long)kv_head * group * size,
                  sizeof(float) * group * size);
    const Cache& prompt = *active_[from].prompt;
    multiply_panels(q, size, queries, prompt.keys(l, kv_head), (long)size * PANEL, size, false, 0,
                    padded(shared) / PANEL, scores, row_size, {});
    for (int i = from; i < to; i++) own_scores(l, kv_head, i, i - from, row_size, padded(shared), scratch);
    multiply_panels(scores, row_size, queries, prompt.values(l, kv_head), prompt.value_stride(),
                    shared, false, 0, wide / PANEL, out, wide, {});
    for (int i = from; i < to; i++) {
      const long first = (long)(i - from) * group;
      if (active_[i].own_keys)
        multiply_panels(scores + first * row_size + padded(shared), row_size, group,
                        active_[i].own->values(l, kv_head), active_[i].own->value_stride(),
                        active_[i].own_keys, false, 0, wide / PANEL, out + first * wide, wide,
                        {nullptr, true});
      float* to_row = h_.floats() + i * h_stride_ + (long)kv_head * group * size;
      for (int r = 0; r < group; r++)
        for (int j = 0; j < size; j++)
          to_row[r * size + j] = out[(first + r) * wide + j] * scratch.inverse[first + r];
    }
  }

  // Scores of one row with its own keys, and the softmax over all its keys.
  void own_scores(int l, int kv_head, int i, int at, long row_size, int after, Scratch& scratch) {
    const Shape& shape = model_.shape;
    const int group = shape.heads / shape.kv_heads, size = shape.head_size;
    const Row& row = active_[i];
    float* scores = scratch.scores.data() + (long)at * group * row_size;
    if (row.own_keys)
      multiply_panels(scratch.queries.data() + (long)at * group * size, size, group,
                      row.own->keys(l, kv_head), (long)size * PANEL, size, false, 0,
                      padded(row.own_keys) / PANEL, scores + after, row_size, {});
    for (int r = 0; r < group; r++) {
      float* mine = scores + r * row_size;
      const Segment segments[2] = {{mine, row.prompt_keys}, {mine + after, row.own_keys}};
      scratch.inverse[(long)at * group + r] = soften(segments, row.own_keys ? 2 : 1);
      // A later token of the prompt may see more keys than this one.
      for (int j = padded(row.prompt_keys); j < after; j++) mine[j] = 0;
    }
  }

  template <class T>
  static void fit(std::vector<T>& buffer, size_t size) {
    if (buffer.size() < size) buffer.resize(size);
  }

  const Model& model_;
  Pool& pool_;
  std::vector<Scratch> scratch_;
  std::vector<Row> active_;
  std::vector<std::pair<int, int>> bundles_;
  Numbers x_, h_, y_, logits_;
  long x_stride_ = 0, h_stride_ = 0, y_stride_ = 0;
};
