// The functions that Python calls. None throws; memory that runs out is reported by null or -1.
#include "decode.h"

namespace {

// A source of weights: fp32, or bf16 where the shape says so.
template <class Do32, class Do16>
void either(const Model& model, const void* source, const Do32& as_fp32, const Do16& as_bf16) {
  if (model.shape.half) as_bf16((const Half*)source);
  else as_fp32((const float*)source);
}

void copy_vector(const Model& model, std::vector<float>& to, const void* source, int size) {
  to.assign(size, 0);
  either(
      model, source, [&](const float* from) { to.assign(from, from + size); },
      [&](const Half* from) { std::transform(from, from + size, to.begin(), widen); });
}

struct Session {
  Pool pool;
  Decoder decoder;
  Session(const Model& model, const Work& work, int threads)
      : pool(threads), decoder(model, pool, work) {}
};

}  // namespace

extern "C" {

int heed_lanes() { return LANES; }

Model* heed_model_new() { return new (std::nothrow) Model(); }
void heed_model_free(Model* model) { delete model; }

// Give the model its shape; weights are then set anew.
int heed_model_shape(Model* model, const Shape* shape) try {
  model->resize(*shape);
  return 0;
} catch (const std::bad_alloc&) {
  return -1;
}

// Outputs first..first+count of a matrix of a layer, or of the output layer (layer -1).
void heed_model_matrix(Model* model, int layer, int name, const void* weight, const void* bias,
                       int first, int count, int transposed) {
  Matrix& matrix = layer < 0 ? model->head : model->layers[layer].matrices[name];
  auto pack = [&](auto* from) { matrix.pack(from, first, count, transposed); };
  auto pack_bias = [&](auto* from) { matrix.pack_bias(from, first, count); };
  either(*model, weight, pack, pack);
  if (bias) either(*model, bias, pack_bias, pack_bias);
}

// The start of the second of two matrices that lie side by side, each padded (gate and up).
int heed_padded(int size) { return padded(size); }

// A norm's weight or bias of a layer, or of the end (layer -1: name 0 weight, 1 bias).
int heed_model_vector(Model* model, int layer, int name, const void* source, int size) try {
  auto& to = layer >= 0 ? model->layers[layer].vectors[name]
             : name == 0 ? model->final_norm
                         : model->final_bias;
  copy_vector(*model, to, source, size);
  return 0;
} catch (const std::bad_alloc&) {
  return -1;
}

void heed_model_scale(Model* model, int layer, float scale) { model->layers[layer].scale = scale; }

// Embeddings are read where they are.
void heed_model_embeddings(Model* model, const void* tokens, const void* positions) {
  model->embedding = tokens;
  model->position_embedding = positions;
}

// Cosines and sines [positions, head_size / 2], fp32.
int heed_model_rotary(Model* model, const float* cosine, const float* sine, int positions) try {
  const long size = (long)positions * (model->shape.head_size / 2);
  model->cosine.assign(cosine, cosine + size);
  model->sine.assign(sine, sine + size);
  return 0;
} catch (const std::bad_alloc&) {
  return -1;
}

Session* heed_session_new(const Model* model, const Work* work, int threads) try {
  return new Session(*model, *work, threads);
} catch (const std::exception&) {
  return nullptr;
}
void heed_session_free(Session* session) { delete session; }

// 1: there is more to do, 0: done, -1: no memory.
int heed_session_advance(Session* session, int passes) try {
  return session->decoder.advance(passes);
} catch (const std::bad_alloc&) {
  return -1;
}

// Ids that could have been drawn for each token of a sample: all joined, and where each token's end.
void heed_session_kept(const Session* session, int sample, const int32_t** ids,
                       const int32_t** ends) {
  const auto& kept = session->decoder.kept(sample);
  *ids = kept.ids.data();
  *ends = kept.ends.data();
}

// One draw of given logits, for tests.
void heed_draw(const float* logits, int size, const Sampling* sampling, float number, int32_t* token,
               float* logprob, int32_t* kept, int32_t* num_kept) {
  DrawScratch scratch;
  std::vector<int32_t> ids;
  const Drawn drawn = Drawer(logits, size, *sampling, scratch).draw(number, &ids);
  *token = drawn.token;
  *logprob = drawn.finite ? drawn.logprob : NAN;
  *num_kept = (int32_t)ids.size();
  std::copy(ids.begin(), ids.end(), kept);
}

}  // extern "C"
