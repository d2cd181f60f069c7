// One training pass over a pack. The gradient of the residual stream walks down in update.dx; what is cheap (norm
// outputs, the MLP's activation) is made anew from the same inputs, hence with the same bits.
#include "model/impl.h"

namespace dapo {

void Model::Impl::backward_mlp(const LayerParams& p, const LayerBuffers& b) {
  const int64_t n = b.h.dim(0);
  const Tensor dx = update.dx.rows(0, n), dact = update.dact.rows(0, n), &dgate_up = b.gate_up, &dh = b.delta;
  backend.matmul_backward_input(dact, dx, weight(p.down));
  backend.swiglu_backward(dgate_up, b.act, dact, b.gate_up);
  backend.matmul_backward_weight(gradient(p.down), {}, dx, b.act);
  backend.matmul_backward_input(dh, dgate_up, weight(p.gate_up));
  model.comm_.all_reduce_sum(dh);
  backend.rmsnorm(b.h, {}, {}, b.x_mid, {}, weight(p.norm2), config.rms_eps);
  backend.matmul_backward_weight(gradient(p.gate_up), {}, dgate_up, b.h);
  backend.rmsnorm_backward(dx, gradient(p.norm2), dh, b.x_mid, weight(p.norm2), b.rstd2);
}

void Model::Impl::backward_attention(const LayerParams& p, const LayerBuffers& b, const PackInputs& in) {
  const int64_t n = b.h.dim(0);
  const AttentionDims dims = config.attention();
  const Tensor dx = update.dx.rows(0, n), datt = update.datt.rows(0, n), dqkv = update.dqkv.rows(0, n), &dh = b.delta;
  backend.matmul_backward_input(datt, dx, weight(p.o));
  backend.matmul_backward_weight(gradient(p.o), {}, dx, b.att);
  backend.attention_backward(dqkv, datt, b.qkv, b.att, b.lse, in.segments, dims);
  backend.rope(dqkv, constants.rope, in.attention.positions, dims, true);
  backend.matmul_backward_input(dh, dqkv, weight(p.qkv));
  model.comm_.all_reduce_sum(dh);
  backend.rmsnorm(b.h, {}, {}, b.x_in, {}, weight(p.norm1), config.rms_eps);
  backend.matmul_backward_weight(gradient(p.qkv), p.qkv_bias < 0 ? Tensor() : gradient(p.qkv_bias), dqkv, b.h);
  backend.rmsnorm_backward(dx, gradient(p.norm1), dh, b.x_in, weight(p.norm1), b.rstd1);
}

void Model::Impl::backward_layer(int l, const PackInputs& in) {
  const LayerBuffers b = update.layers[static_cast<size_t>(l)].first(in.ids.dim(0));
  if (model.limits_.recompute) {
    AttentionInputs attention = in.attention;
    attention.segments = &in.segments;
    layer_to_gate_up(l, b, b.x_in, {}, attention);
  }
  backward_mlp(params.layers[static_cast<size_t>(l)], b);
  backward_attention(params.layers[static_cast<size_t>(l)], b, in);
}

void Model::train(Pack& pack, float temperature, const DapoLoss& loss) {
  Impl& m = *impl_;
  const PackInputs in = m.stage(pack, true);
  const int64_t n = in.ids.dim(0), r = in.rows.dim(0);
  m.forward_pack(in);

  const HeadBuffers head = m.update.head.first(r);
  m.gather_pack_head(in, in.rows, head);
  const Tensor log_prob = m.update.log_prob.rows(0, r), entropy = m.update.entropy.rows(0, r),
               losses = m.update.loss.rows(0, r), clip = m.update.clip.rows(0, r);
  const Tensor &dh = head.delta, &dx = head.h;  // both are free by the time that they are written
  backend_.lm_dapo(dh, m.gradient(params_.head), log_prob, entropy, losses, clip, head.h, m.weight(params_.head),
                   in.targets, in.old_log_prob, in.advantage, in.weight, temperature, loss);
  backend_.zero(dx);
  backend_.rmsnorm_backward(dx, m.gradient(params_.norm), dh, head.x, m.weight(params_.norm), head.rstd);
  const Tensor residual = m.update.dx.rows(0, n);
  backend_.sum_rows(residual, dx, in.head_offsets, in.head_rows);

  for (int l = config_.layers - 1; l >= 0; --l) m.backward_layer(l, in);
  backend_.embedding_backward(m.gradient(params_.embedding), residual, in.unique, in.id_offsets, in.id_rows);

  const size_t count = pack.rows.size();
  pack.log_prob.resize(count), pack.entropy.resize(count), pack.loss.resize(count), pack.clip.resize(count);
  backend_.copy_out(pack.log_prob.data(), log_prob);
  backend_.copy_out(pack.entropy.data(), entropy);
  backend_.copy_out(pack.loss.data(), losses);
  backend_.copy_out(pack.clip.data(), clip);
  backend_.synchronize();
}

}  // namespace dapo
