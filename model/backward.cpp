// One training pass over a pack. buffers_.dx carries the gradient of the residual stream down through the layers; what
// is cheap (norm outputs, the MLP's activation) is computed again from the same inputs, hence with the same bits.
#include <algorithm>

#include "model/learner.h"

namespace dapo {

/// dx of all n tokens; where they are dealt, it lies in b.partial, until that is written again.
Tensor Learner::whole_dx(const LayerBuffers& b, int64_t n) const {
  if (!b.dealt()) return buffers_.dx.rows(0, n);
  weights_.tensor_parallel().all_gather(b.partial, buffers_.dx.rows(0, b.partial.dim(1)));
  return all_rows(b.partial, n);
}

/// From dy, the gradient of h w^T, through the product and the norm of x that gave h: adds to dx.
void Learner::backward_norm_and_product(const LayerBuffers& b, const Tensor& dy, int w, int bias, int norm,
                                        const Tensor& x, const Tensor& rstd) {
  const int64_t n = dy.dim(0), own = own_tokens(n);
  const Tensor dh = own_part(b.delta, 0).rows(0, own);
  if (b.dealt()) {
    backend_.matmul_backward_input(all_rows(b.partial, n), dy, weights_.view(w));
    weights_.tensor_parallel().all_to_all(b.delta, b.partial);
    backend_.add_parts(own_part(b.delta, 0), b.delta);
  } else {
    backend_.matmul_backward_input(dh, dy, weights_.view(w));
  }
  layers_.norm(b, {}, {}, x, {}, norm);
  backend_.matmul_backward_weight(gradient(w), bias != LayerParams::kAbsent ? gradient(bias) : Tensor(), dy, b.h);
  backend_.rmsnorm_backward(buffers_.dx.rows(0, own), gradient(norm), dh, x.rows(0, own), weights_.view(norm),
                            rstd.rows(0, own));
}

void Learner::backward_mlp(const LayerParams& p, const LayerBuffers& b) {
  const int64_t n = b.h.dim(0);
  const Tensor dx = whole_dx(b, n), dact = buffers_.dact.rows(0, n), &dgate_up = b.gate_up;
  backend_.matmul_backward_input(dact, dx, weights_.view(p.down));
  backend_.swiglu_backward(dgate_up, b.act, dact, b.gate_up);
  backend_.matmul_backward_weight(gradient(p.down), {}, dx, b.act);
  backward_norm_and_product(b, dgate_up, p.gate_up, LayerParams::kAbsent, p.norm2, b.x_mid, b.rstd2);
}

void Learner::backward_attention(const LayerParams& p, const LayerBuffers& b, const PackInputs& in) {
  const int64_t n = b.h.dim(0);
  const AttentionDims dims = weights_.local().attention();
  const Tensor dx = whole_dx(b, n), datt = buffers_.datt.rows(0, n), dqkv = buffers_.dqkv.rows(0, n);
  backend_.matmul_backward_input(datt, dx, weights_.view(p.o));
  backend_.matmul_backward_weight(gradient(p.o), {}, dx, b.att);
  backend_.attention_backward(dqkv, datt, b.qkv, b.att, b.lse, in.segments, dims);
  backend_.rope(dqkv, memory_.constants().rope, in.positions, dims, true);
  backward_norm_and_product(b, dqkv, p.qkv, p.qkv_bias, p.norm1, b.x_in, b.rstd1);
}

/// Through the final norm: from the gradients of the head's rows to dx of the last layer's output.
void Learner::backward_final_norm(const HeadBuffers& head, const LayerBuffers& last, const PackInputs& in) {
  const int64_t n = in.ids.dim(0), own = own_tokens(n);
  const int norm = weights_.params().norm;
  const Tensor dh = own_part(head.delta, 0), w = weights_.view(norm), dx = buffers_.dx.rows(0, own);
  const DeviceIndex& index = in.heads_by_token;
  if (!last.dealt()) {
    const Tensor& dx_of_rows = head.h;  // which has been read for the last time
    backend_.zero(dx_of_rows);
    backend_.rmsnorm_backward(dx_of_rows, gradient(norm), dh, head.x, w, head.rstd);
    return backend_.sum_rows(dx, dx_of_rows, index.offsets, index.items);
  }
  // The norm was taken of tokens, so their rows of the head come together before it.
  const Tensor dh_of_tokens = own_part(last.delta, 0).rows(0, own);
  const int64_t first = std::min(n, weights_.tensor_rank().rank * last.delta.dim(1));
  backend_.sum_rows(dh_of_tokens, dh, index.offsets.rows(first, own + 1), index.items);
  backend_.zero(dx);
  backend_.rmsnorm_backward(dx, gradient(norm), dh_of_tokens, head.x.rows(0, own), w, head.rstd.rows(0, own));
}

void Learner::backward_layer(int l, const PackInputs& in) {
  const LayerBuffers b = layer(l).first(in.ids.dim(0));
  if (limits().recompute) layers_.attention_half(l, b, b.x_in, {}, attention_inputs(in));
  const LayerParams& p = weights_.params().layer(l);
  backward_mlp(p, b);
  backward_attention(p, b, in);
}

std::vector<float> sequence_log_ratios(std::span<const float> log_prob, std::span<const float> old_log_prob,
                                       std::span<const int32_t> sequence) {
  const size_t count = log_prob.size();
  CHECK_EQ(sequence.size(), count, "GSPO needs the response of every token");
  CHECK_EQ(old_log_prob.size(), count, "GSPO needs old log-probs");
  std::vector<double> sum(count, 0), tokens(count, 0);
  for (size_t r = 0; r < count; ++r) {
    const auto s = static_cast<size_t>(sequence[r]);
    CHECK_LT(s, count, "response of head row {}", r);
    sum[s] += static_cast<double>(log_prob[r]) - static_cast<double>(old_log_prob[r]);
    ++tokens[s];
  }
  std::vector<float> ratios(count);
  for (size_t r = 0; r < count; ++r) {
    const auto s = static_cast<size_t>(sequence[r]);
    ratios[r] = static_cast<float>(sum[s] / tokens[s]);
  }
  return ratios;
}

void Learner::train(Pack& pack, float temperature, const DapoLoss& loss) {
  PackInputs in = stage(pack);
  stage_for_training(pack, in);
  const int64_t n = in.ids.dim(0), r = in.head_rows.dim(0);
  const ParamTable& params = weights_.params();
  forward(layers_, in);

  gradients_.pack_begins();
  const HeadBuffers head = head_buffers(in, r);
  final_norm(layers_, in, in.head_rows, head);
  const Tensor log_prob = buffers_.log_prob.rows(0, r), entropy = buffers_.entropy.rows(0, r),
               losses = buffers_.loss.rows(0, r), clip = buffers_.clip.rows(0, r);
  if (loss.kind == LossKind::gspo) {
    backend_.lm_logprob(log_prob, {}, head.h, layers_.head(), in.targets, temperature);
    pack.log_prob.resize(pack.head_rows.size());
    backend_.copy_out_now(pack.log_prob.data(), log_prob);
    in.log_ratio = staged_.put(sequence_log_ratios(pack.log_prob, pack.old_log_prob, pack.sequence));
  }
  backend_.lm_dapo(head.delta, gradient(params.head), log_prob, entropy, losses, clip, head.h, layers_.head(),
                   in.targets, in.old_log_prob, in.advantage, in.weight, in.log_ratio, in.ref_log_prob, temperature,
                   loss);
  const LayerBuffers last = buffers_.layers.back().first(n);
  backward_final_norm(head, last, in);
  gradients_.bucket_done(shards().last_bucket());
  for (int l = config().layers - 1; l >= 0; --l) {
    gradients_.bucket_begins(Shards::layer_bucket(l));
    backward_layer(l, in);
    gradients_.bucket_done(Shards::layer_bucket(l));
  }
  gradients_.bucket_begins(Shards::embedding_bucket());
  backend_.embedding_backward(gradient(params.embedding), whole_dx(last, n), in.tokens_by_id.keys,
                              in.tokens_by_id.offsets, in.tokens_by_id.items);
  gradients_.bucket_done(Shards::embedding_bucket());

  const size_t count = pack.head_rows.size();
  pack.log_prob.resize(count), pack.entropy.resize(count), pack.loss.resize(count), pack.clip.resize(count);
  backend_.copy_out(pack.log_prob.data(), log_prob);
  backend_.copy_out(pack.entropy.data(), entropy);
  backend_.copy_out(pack.loss.data(), losses);
  backend_.copy_out(pack.clip.data(), clip);
  backend_.synchronize();
}

}  // namespace dapo
