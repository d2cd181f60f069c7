#include "model/learner.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace dapo {

void check_same_shapes(const ModelConfig& reference, const ModelConfig& model, const std::string& folder) {
  const auto same = [&](auto ModelConfig::*member, const char* name) {
    if (reference.*member != model.*member)
      fail_input("{}: {} is {}, the trained model's is {}: a reference has the shapes of the trained model", folder,
                 name, reference.*member, model.*member);
  };
  same(&ModelConfig::hidden, "hidden_size"), same(&ModelConfig::ffn, "intermediate_size");
  same(&ModelConfig::layers, "num_hidden_layers"), same(&ModelConfig::heads, "num_attention_heads");
  same(&ModelConfig::kv_heads, "num_key_value_heads"), same(&ModelConfig::head_dim, "head_dim");
  same(&ModelConfig::vocab, "vocab_size"), same(&ModelConfig::rope_theta, "rope_theta");
  same(&ModelConfig::rms_eps, "rms_norm_eps"), same(&ModelConfig::tied, "tie_word_embeddings");
  same(&ModelConfig::qkv_bias, "the bias of q, k and v");
}

Learner::Learner(ModelMemory& memory)
    : memory_(memory),
      weights_(memory.weights()),
      backend_(memory.backend()),
      layers_(weights_, memory.constants().rope),
      state_(memory.state()),
      gradients_(memory) {
  CHECK(limits().pack_tokens > 0, "the memory has no room for packs");
}

void Learner::begin() {
  memory_.use_workspace();
  const bool again = memory_.held_by(this);
  Arena arena = memory_.give_shared(this);
  buffers_ = lay_update(arena, config(), limits(), backend_.dtype());
  CHECK_EQ(arena.peak(), memory_.plan().update, "the plan differs from the layout");
  gradients_.lie_in(buffers_.gradients);
  staged_ = memory_.staged_inputs(buffers_.inputs);
  if (limits().train && !again) zero_gradients();
}

void Learner::forward(const Layers& layers, const PackInputs& in) {
  const int64_t n = in.ids.dim(0);
  Tensor x, delta;
  for (int l = 0; l < config().layers; ++l) {
    const LayerBuffers b = layer(l).first(n);
    if (l == 0) {
      layers.embed(b, in.ids, buffers_.embedded);
      x = b.x_in;
    }
    layers.attention_half(l, b, x, delta, attention_inputs(in));
    layers.mlp_half(l, b);
    x = b.x_mid, delta = b.delta;
  }
}

void Learner::final_norm(const Layers& layers, const PackInputs& in, const Tensor& head_rows, const HeadBuffers& head) {
  const LayerBuffers last = buffers_.layers.back().first(in.ids.dim(0));
  layers.final_norm(head, last, head_rows);
}

void Learner::score(const Layers& layers, const Pack& pack, float temperature, std::vector<float>& log_prob,
                    std::vector<float>* entropy) {
  const PackInputs in = stage(pack);
  const int64_t r = in.head_rows.dim(0);
  forward(layers, in);
  const HeadBuffers head = head_buffers(in, r);
  final_norm(layers, in, in.head_rows, head);
  const Tensor scores = buffers_.log_prob.rows(0, r),
               entropies = entropy != nullptr ? buffers_.entropy.rows(0, r) : Tensor();
  backend_.lm_logprob(scores, entropies, head.h, layers.head(), in.targets, temperature);
  log_prob.resize(pack.head_rows.size());
  backend_.copy_out(log_prob.data(), scores);
  if (entropy != nullptr) {
    entropy->resize(pack.head_rows.size());
    backend_.copy_out(entropy->data(), entropies);
  }
  backend_.synchronize();
}

void Learner::score(Pack& pack, float temperature) {
  score(layers_, pack, temperature, pack.log_prob, &pack.entropy);
}

void Learner::score_reference(Pack& pack, float temperature, const Weights& reference) {
  CHECK(&reference.backend() == &backend_, "the reference lies on another backend");
  score(Layers(reference, memory_.constants().rope), pack, temperature, pack.ref_log_prob, nullptr);
}

/// Updates a slice of the weights. Neighbours with the same weight decay are updated in one call.
void Learner::adamw(const ShardSlice& slice, const AdamW& adamw) {
  const ParamTable& params = weights_.params();
  const int64_t slice_end = slice.begin + slice.count;
  for (size_t i = 0; i < params.all.size();) {
    const bool decayed = params.all[i].decayed;
    const int64_t first = params.all[i].offset;
    while (i < params.all.size() && params.all[i].decayed == decayed) ++i;
    const int64_t begin = std::max(first, slice.begin);
    const int64_t count = std::min(i < params.all.size() ? params.all[i].offset : params.size, slice_end) - begin;
    if (count <= 0) continue;
    const int64_t local = slice.local + begin - slice.begin;
    AdamW run = adamw;
    if (!decayed) run.weight_decay = 0;
    backend_.adamw(weights_.flat().rows(begin, count),
                   state_.remainders ? state_.remainders.rows(local, count) : Tensor(),
                   state_.moment1.rows(local, count), state_.moment2.rows(local, count),
                   gradients_.sums(slice).rows(begin - slice.begin, count), memory_.constants().norm2, run);
  }
}

/// Of a slice of the gradients; what several tensor-parallel ranks hold alike is counted by the first of them.
void Learner::add_squares(const ShardSlice& slice) {
  const Tensor& norm2 = memory_.constants().norm2;
  if (weights_.tensor_rank().ranks == 1)  // the padding between parameters is always zero
    return backend_.sum_of_squares(norm2, gradients_.sums(slice));
  const int64_t end = slice.begin + slice.count;
  for (const Param& p : weights_.params().all)
    for (const ParamPart& part : p.parts) {
      const Range rows = rows_within(p, part, slice.begin, end);
      if (part.copy == 0 && rows.count() > 0)
        backend_.sum_of_squares(
            norm2, gradients_.sums(slice).rows(p.offset - slice.begin + (part.row_begin + rows.begin) * p.columns,
                                               rows.count() * p.columns));
    }
}

Learner::UpdateResult Learner::update(const AdamW& params) {
  CHECK(limits().train, "the memory has no room for training");
  CHECK(memory_.held_by(this), "begin() comes before update");
  memory_.use_workspace();
  const Tensor& norm2 = memory_.constants().norm2;
  Comm* const comm = limits().data_ranks > 1 ? memory_.data_parallel() : nullptr;
  const std::vector<ShardSlice> own = slices();
  backend_.zero(norm2);
  gradients_.end();
  for (const ShardSlice& s : own) add_squares(s);
  if (comm != nullptr) comm->all_reduce_sum(norm2);
  if (Comm& ranks = weights_.tensor_parallel(); ranks.size() > 1) ranks.all_reduce_sum(norm2);
  for (const ShardSlice& s : own) adamw(s, params);
  UpdateResult result{};
  if (comm == nullptr) {
    gradients_.are_zero();
  } else {
    zero_gradients();  // the other ranks' slices
    const ShardExchange exchange(backend_, *comm, shards(), memory_.constants().exchange);
    const uint64_t before = comm->sent();
    for (size_t b = 0; b < shards().buckets(); ++b) exchange.gather(weights_.flat(), b);
    result.exchange.bytes = static_cast<double>(gradients_.sent() + comm->sent() - before);
  }
  double sum = 0;
  backend_.copy_out_now(&sum, norm2);
  result.grad_norm = std::sqrt(sum), result.applied = std::isfinite(sum);
  if (comm != nullptr) {
    const Backend::BesideSeconds now = backend_.beside_seconds(), before = std::exchange(beside_, now);
    result.exchange.seconds = now.work - before.work, result.exchange.waited = now.waited - before.waited;
  }
  return result;
}

std::vector<float> Learner::masters() const {
  CHECK_EQ(limits().data_ranks, 1, "a rank holds the low halves of its shard only");
  std::vector<float> out(static_cast<size_t>(weights_.params().size));
  if (backend_.dtype() == DType::f32) {
    backend_.copy_out_now(out.data(), weights_.flat());
    return out;
  }
  std::vector<bf16> weights(out.size());
  std::vector<int16_t> remainders(out.size());
  backend_.copy_out(weights.data(), weights_.flat());
  if (state_.remainders) backend_.copy_out(remainders.data(), state_.remainders);
  backend_.synchronize();
  for (size_t i = 0; i < out.size(); ++i) out[i] = join_master(weights[i], remainders[i]);
  return out;
}

std::vector<float> Learner::logits(const Pack& pack) {
  CHECK_EQ(weights_.tensor_rank().ranks, 1, "a rank has a part of the vocabulary only");
  const PackInputs in = stage(pack);
  const int64_t n = in.ids.dim(0), v = config().vocab, step = std::min(n, limits().pack_head_rows);
  forward(layers_, in);
  const OwnedBlock block(backend_, Tensor(nullptr, backend_.dtype(), {step, v}).bytes());
  std::vector<float> out;
  backend_.synchronize();  // the pack's inputs have been copied, so their pinned memory may be reused
  for (int64_t begin = 0; begin < n; begin += step) {
    const int64_t count = std::min(step, n - begin);
    std::vector<int32_t> index(static_cast<size_t>(count));
    std::iota(index.begin(), index.end(), static_cast<int32_t>(begin));
    staged_.reset();
    const Tensor head_rows = staged_.put(index), y(block.data(), backend_.dtype(), {count, v});
    const HeadBuffers head = head_buffers(in, count);
    final_norm(layers_, in, head_rows, head);
    backend_.matmul(y, head.h, layers_.head(), {});
    const size_t values = static_cast<size_t>(count * v);
    if (backend_.dtype() == DType::f32) {
      out.resize(out.size() + values);
      backend_.copy_out_now(out.data() + out.size() - values, y);
    } else {
      std::vector<bf16> half(values);
      backend_.copy_out_now(half.data(), y);
      for (const bf16 x : half) out.push_back(to_float(x));
    }
  }
  return out;
}

}  // namespace dapo
