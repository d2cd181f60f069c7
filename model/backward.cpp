// One training pass over a pack. buffers_.dx carries the gradient of the residual stream down through the layers; what
// is cheap (norm outputs, the MLP's activation) is computed again from the same inputs, hence with the same bits.
#include "model/learner.h"

namespace dapo {

/// The gradient of a norm's output: every rank's part has been written, their sum replaces the first.
Tensor Learner::sum_parts(const Tensor& parts) {
  Comm& ranks = weights_.tensor_parallel();
  const Tensor sum = own_part(parts, 0);
  exchange_parts(ranks, parts);
  if (ranks.size() > 1) backend_.add_parts(sum, parts);
  return sum;
}

void Learner::backward_mlp(const LayerParams& p, const LayerBuffers& b) {
  const int64_t n = b.h.dim(0);
  const Tensor dx = buffers_.dx.rows(0, n), dact = buffers_.dact.rows(0, n), &dgate_up = b.gate_up;
  backend_.matmul_backward_input(dact, dx, weights_.view(p.down));
  backend_.swiglu_backward(dgate_up, b.act, dact, b.gate_up);
  backend_.matmul_backward_weight(gradient(p.down), {}, dx, b.act);
  backend_.matmul_backward_input(own_part(b.delta, weights_.tensor_rank().rank), dgate_up, weights_.view(p.gate_up));
  const Tensor dh = sum_parts(b.delta);
  backend_.rmsnorm(b.h, {}, {}, b.x_mid, {}, weights_.view(p.norm2), config().rms_eps);
  backend_.matmul_backward_weight(gradient(p.gate_up), {}, dgate_up, b.h);
  backend_.rmsnorm_backward(dx, gradient(p.norm2), dh, b.x_mid, weights_.view(p.norm2), b.rstd2);
}

void Learner::backward_attention(const LayerParams& p, const LayerBuffers& b, const PackInputs& in) {
  const int64_t n = b.h.dim(0);
  const AttentionDims dims = weights_.local().attention();
  const Tensor dx = buffers_.dx.rows(0, n), datt = buffers_.datt.rows(0, n), dqkv = buffers_.dqkv.rows(0, n);
  backend_.matmul_backward_input(datt, dx, weights_.view(p.o));
  backend_.matmul_backward_weight(gradient(p.o), {}, dx, b.att);
  backend_.attention_backward(dqkv, datt, b.qkv, b.att, b.lse, in.segments, dims);
  backend_.rope(dqkv, memory_.constants().rope, in.positions, dims, true);
  backend_.matmul_backward_input(own_part(b.delta, weights_.tensor_rank().rank), dqkv, weights_.view(p.qkv));
  const Tensor dh = sum_parts(b.delta);
  backend_.rmsnorm(b.h, {}, {}, b.x_in, {}, weights_.view(p.norm1), config().rms_eps);
  backend_.matmul_backward_weight(gradient(p.qkv), p.has_bias() ? gradient(p.qkv_bias) : Tensor(), dqkv, b.h);
  backend_.rmsnorm_backward(dx, gradient(p.norm1), dh, b.x_in, weights_.view(p.norm1), b.rstd1);
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

  const HeadBuffers head = buffers_.head.first(r);
  final_norm(layers_, in, in.head_rows, head);
  const Tensor log_prob = buffers_.log_prob.rows(0, r), entropy = buffers_.entropy.rows(0, r),
               losses = buffers_.loss.rows(0, r), clip = buffers_.clip.rows(0, r);
  if (loss.kind == LossKind::gspo) {
    backend_.lm_logprob(log_prob, {}, head.h, layers_.head(), in.targets, temperature);
    pack.log_prob.resize(pack.head_rows.size());
    backend_.copy_out_now(pack.log_prob.data(), log_prob);
    in.log_ratio = staged_.put(sequence_log_ratios(pack.log_prob, pack.old_log_prob, pack.sequence));
  }
  const Tensor dh = own_part(head.delta, 0), &dx = head.h;  // each is written after the last read of what it holds
  backend_.lm_dapo(dh, gradient(params.head), log_prob, entropy, losses, clip, head.h, layers_.head(), in.targets,
                   in.old_log_prob, in.advantage, in.weight, in.log_ratio, in.ref_log_prob, temperature, loss);
  backend_.zero(dx);
  backend_.rmsnorm_backward(dx, gradient(params.norm), dh, head.x, weights_.view(params.norm), head.rstd);
  const Tensor residual = buffers_.dx.rows(0, n);
  backend_.sum_rows(residual, dx, in.heads_by_token.offsets, in.heads_by_token.items);

  for (int l = config().layers - 1; l >= 0; --l) backward_layer(l, in);
  backend_.embedding_backward(gradient(params.embedding), residual, in.tokens_by_id.keys, in.tokens_by_id.offsets,
                              in.tokens_by_id.items);

  const size_t count = pack.head_rows.size();
  pack.log_prob.resize(count), pack.entropy.resize(count), pack.loss.resize(count), pack.clip.resize(count);
  backend_.copy_out(pack.log_prob.data(), log_prob);
  backend_.copy_out(pack.entropy.data(), entropy);
  backend_.copy_out(pack.loss.data(), losses);
  backend_.copy_out(pack.clip.data(), clip);
  backend_.synchronize();
}

}  // namespace dapo
