// The decoding loop: slots that are full while samples wait, prompts run once for all their samples.
//
// while samples are active or wait:
//     give free slots to waiting samples; a new prompt's tokens join the next pass
//     run one pass: the newest token of every active sample, and tokens of new prompts
//     draw the next token of each; a sample that ends frees its slot
#pragma once

#include <memory>

#include "draw.h"
#include "forward.h"

enum Finish : uint8_t { OPEN = 0, STOP = 1, LENGTH = 2, FAILED = 3 };

// One call's work. Arrays belong to the caller and live until the call is over.
struct Work {
  int32_t prompts, samples, max_tokens, rows, num_end_ids, truncates;
  Sampling sampling;
  const int32_t* tokens;   // all prompts joined
  const int32_t* offsets;  // [prompts + 1]
  const float* numbers;    // [prompts * samples, max_tokens], or null: greedy
  const int32_t* end_ids;
  const uint8_t* stopped;  // [prompts * samples], set by the caller between two steps
  // Results, by prompt and sample.
  int32_t* drawn;          // [prompts * samples, max_tokens]
  float* logprobs;         // [prompts * samples, max_tokens]
  int32_t* counts;
  uint8_t* finishes;
  float* trace;            // [prompts * samples, max_tokens, vocabulary], or null
};

class Decoder {
 public:
  Decoder(const Model& model, Pool& pool, const Work& work)
      : model_(model), pool_(pool), work_(work), forward_(model, pool), scratch_(pool.count()) {
    prompts_ = std::vector<Prompt>(work.prompts);
    slots_.resize(work.rows);
    const Cache cache(model.shape, work.max_tokens);
    own_.reserve(sizeof(float) * cache.floats() * work.rows);
    for (int i = 0; i < work.rows; i++) {
      slots_[i].cache = cache;
      slots_[i].cache.stand_at(own_.floats() + i * cache.floats());
    }
    for (int i = work.rows; i-- > 0;) free_.push_back(i);
    if (work.truncates) kept_.resize((size_t)work.prompts * work.samples);
  }

  // Run so many passes at most; says whether there is more to do.
  bool advance(int passes) {
    while (passes-- > 0 && !done()) {
      end_stopped();
      // Whoever looks for stop texts sees every token of a sample before its next one.
      if (!admit()) step();
    }
    return !done();
  }
  struct Kept {
    std::vector<int32_t> ids;
    std::vector<int32_t> ends;  // where each token's ids end
  };
  const Kept& kept(int sample) const { return kept_[sample]; }

 private:
  // New prompts' tokens in one pass, beside the active rows.
  static constexpr int PROMPT_TOKENS = 256;

  struct Prompt {
    Cache cache;
    Numbers store;
    int done = 0;                // tokens that were run
    int open = 0;                // samples that have not ended
    std::vector<int> waiting;    // admitted samples that wait for its first logits
    std::vector<float> logits;   // after its last token
    bool started = false;
  };
  struct Slot {
    Cache cache;
    int sample = -1;
  };
  struct Request {
    int sample, slot;
    const float* logits;
    Drawn drawn;
  };

  bool done() const { return active_.empty() && filling_.empty() && next_ == total(); }
  int total() const { return work_.prompts * work_.samples; }
  int prompt_of(int sample) const { return sample / work_.samples; }
  int length_of(int prompt) const { return work_.offsets[prompt + 1] - work_.offsets[prompt]; }

  // Give free slots to waiting samples; says whether any token was drawn.
  bool admit() {
    bool drew = false;
    while (!free_.empty() && next_ < total()) {
      std::vector<Request> ready;
      while (!free_.empty() && next_ < total()) {
        const int sample = next_++, slot = free_.back();
        free_.pop_back();
        Prompt& prompt = start(prompt_of(sample));
        slots_[slot].sample = sample;
        if (prompt.logits.empty()) prompt.waiting.push_back(slot);
        else ready.push_back({sample, slot, prompt.logits.data(), {}});
      }
      settle(ready);
      drew |= !ready.empty();
    }
    return drew;
  }
  Prompt& start(int number) {
    Prompt& prompt = prompts_[number];
    if (!prompt.started) {
      prompt.started = true;
      prompt.open = work_.samples;
      prompt.cache = Cache(model_.shape, length_of(number));
      prompt.store.reserve(sizeof(float) * prompt.cache.floats());
      prompt.cache.stand_at(prompt.store.floats());
      filling_.push_back(number);
    }
    return prompt;
  }

  void step() {
    std::vector<Row> rows;
    std::vector<int> ran;  // prompts whose last token is in this pass
    for (int slot : active_) {
      Slot& it = slots_[slot];
      const int number = prompt_of(it.sample), count = work_.counts[it.sample];
      const int length = length_of(number);
      rows.push_back({work_.drawn[(long)it.sample * work_.max_tokens + count - 1],
                      length + count - 1, &prompts_[number].cache, length, &it.cache, count, true});
    }
    int budget = PROMPT_TOKENS;
    for (int number : filling_) {
      Prompt& prompt = prompts_[number];
      const int length = length_of(number), end = std::min(length, prompt.done + budget);
      budget -= end - prompt.done;
      for (int at = prompt.done; at < end; at++)
        rows.push_back({work_.tokens[work_.offsets[number] + at], at, &prompt.cache, at + 1, nullptr,
                        0, at + 1 == length});
      prompt.done = end;
      if (end == length) ran.push_back(number);
    }
    filling_.erase(filling_.begin(), filling_.begin() + ran.size());
    const float* logits = forward_.run(rows.data(), (int)rows.size());
    std::vector<Request> requests;
    for (int slot : active_) {
      requests.push_back({slots_[slot].sample, slot, logits, {}});
      logits += forward_.logits_stride();
    }
    active_.clear();
    for (int number : ran) {
      Prompt& prompt = prompts_[number];
      prompt.logits.assign(logits, logits + model_.shape.vocabulary);
      for (int slot : prompt.waiting) requests.push_back({slots_[slot].sample, slot, logits, {}});
      prompt.waiting.clear();
      logits += forward_.logits_stride();
    }
    settle(requests);
  }

  // Draw a token for each request, write it down, and free the slots of samples that end.
  void settle(std::vector<Request>& requests) {
    pool_.run((int)requests.size(), [&](int first, int last, int thread) {
      for (int i = first; i < last; i++) draw(requests[i], scratch_[thread]);
    });
    for (const Request& request : requests) {
      const int sample = request.sample, count = work_.counts[sample];
      const long at = (long)sample * work_.max_tokens + count;
      if (!request.drawn.finite) {
        end(request.slot, FAILED);
        continue;
      }
      work_.drawn[at] = request.drawn.token;
      work_.logprobs[at] = request.drawn.logprob;
      work_.counts[sample] = count + 1;
      if (work_.truncates) kept_[sample].ends.push_back((int32_t)kept_[sample].ids.size());
      if (ends(request.drawn.token)) {
        end(request.slot, STOP);
      } else if (count + 1 == work_.max_tokens) {
        end(request.slot, LENGTH);
      } else {
        active_.push_back(request.slot);
      }
    }
    // Samples of a prompt stand together, so that they read its keys together.
    std::sort(active_.begin(), active_.end(),
              [this](int a, int b) { return slots_[a].sample < slots_[b].sample; });
  }
  void draw(Request& request, DrawScratch& scratch) {
    const int sample = request.sample;
    const long at = (long)sample * work_.max_tokens + work_.counts[sample];
    if (work_.trace)
      std::memcpy(work_.trace + at * model_.shape.vocabulary, request.logits,
                  sizeof(float) * model_.shape.vocabulary);
    Drawer drawer(request.logits, model_.shape.vocabulary, work_.sampling, scratch);
    request.drawn = drawer.draw(work_.numbers ? work_.numbers[at] : 0,
                                work_.truncates ? &kept_[sample].ids : nullptr);
  }
  bool ends(int32_t token) const {
    for (int i = 0; i < work_.num_end_ids; i++)
      if (work_.end_ids[i] == token) return true;
    return false;
  }
  void end(int slot, Finish finish) {
    const int sample = slots_[slot].sample;
    work_.finishes[sample] = finish;
    free_.push_back(slot);
    Prompt& prompt = prompts_[prompt_of(sample)];
    if (--prompt.open == 0) {
      prompt.store.clear();
      std::vector<float>().swap(prompt.logits);
    }
  }
  void end_stopped() {
    size_t kept = 0;
    for (int slot : active_) {
      if (work_.stopped[slots_[slot].sample]) end(slot, STOP);
      else active_[kept++] = slot;
    }
    active_.resize(kept);
  }

  const Model& model_;
  Pool& pool_;
  Work work_;
  Forward forward_;
  std::vector<DrawScratch> scratch_;
  std::vector<Prompt> prompts_;
  std::vector<Slot> slots_;
  Numbers own_;  // keys and values of all slots
  std::vector<int> active_, free_, filling_;
  std::vector<Kept> kept_;
  int next_ = 0;
};
