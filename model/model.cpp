#include "model/model.h"

#include <algorithm>
#include <cmath>

#include "core/sizes.h"
#include "model/impl.h"

namespace dapo {

MemoryPlan plan_memory(const Backend& backend, const ModelConfig& config, const ModelLimits& limits) {
  CHECK(limits.max_length > 0 && limits.page_size % kKvTile == 0, "length {}, page size {}", limits.max_length,
        limits.page_size);
  const ParamTable params = parameter_table(config);
  const DType dtype = backend.dtype();
  MemoryPlan plan{};
  const auto measure = [&](const char* name, auto&& lay) {
    Arena arena(name);
    lay(arena);
    plan.pieces.insert(plan.pieces.end(), arena.holdings().begin(), arena.holdings().end());
    return arena.peak();
  };
  plan.weights = measure("weights", [&](Arena& a) { a.take("weights", dtype, {params.size}); });
  plan.state = limits.train ? measure("state", [&](Arena& a) { lay_state(a, params, dtype); }) : 0;
  plan.rollout = measure("rollout", [&](Arena& a) { lay_rollout(a, config, limits, dtype); });
  plan.update = measure("update", [&](Arena& a) { lay_update(a, config, limits, dtype); });
  plan.workspace = measure("workspace", [&](Arena& a) {
    lay_constants(a, config, limits);
    a.take("scratch of the ops", DType::u8,
           {static_cast<int64_t>(backend.workspace_bytes(workspace_needs(config, limits)))});
  });
  return plan;
}

int64_t most_rows(const ModelLimits& l) {
  return std::max({l.pack_tokens, int64_t{l.prefill_rows}, int64_t{l.batch}});
}

Model::Impl::Block Model::Impl::allocate(size_t bytes, bool dense) {
  return {bytes ? backend.allocate(bytes, dense) : nullptr, bytes};
}

void Model::Impl::release(Block& b) {
  if (b.bytes) backend.release(b.data, b.bytes);
  b = {};
}

Model::Impl::~Impl() {
  for (Block* b : {&weights, &state, &shared, &workspace}) release(*b);
  if (host.bytes) backend.release_host(host.data, host.bytes);
}

Model::Model(Backend& backend, Comm& tensor_parallel, const ModelConfig& config)
    : backend_(backend), comm_(tensor_parallel), config_(config), params_(parameter_table(config_)) {
  CHECK_EQ(comm_.size(), 1, "tensor parallelism is not here yet");
  impl_ = std::make_unique<Impl>(*this);
  const Tensor shape(nullptr, backend.dtype(), {params_.size});
  impl_->weights = impl_->allocate(shape.bytes(), true);
  weights_ = Tensor(impl_->weights.data, shape.dtype, {params_.size});
}

Model::~Model() = default;

void Model::reserve(const ModelLimits& limits) {
  Impl& m = *impl_;
  CHECK(m.workspace_arena == nullptr, "reserve() is called once");
  m.plan = plan_memory(backend_, config_, limits);
  const size_t needed = m.plan.total() - m.plan.weights, available = backend_.memory_available();
  if (needed > available) {
    std::string pieces;
    for (const Arena::Holding& h : m.plan.pieces)
      pieces += fmt::format("{}{} {:.2f}", pieces.empty() ? "" : ", ", h.what, gib(h.bytes));
    fail(
        kExitResources,
        "the model needs {:.2f} GiB beside its weights, {:.2f} GiB are free (GiB: {}); lower the batch, the lengths or "
        "the pages, or turn recompute on",
        gib(needed), gib(available), pieces);
  }
  limits_ = limits;
  backend_.prepare_products(weight_shapes(params_), most_rows(limits));
  m.state = m.allocate(m.plan.state, true);
  m.shared = m.allocate(std::max(m.plan.rollout, m.plan.update));
  m.workspace = m.allocate(m.plan.workspace);
  if (limits.train) {
    Arena arena("state", m.state.data, m.state.bytes);
    m.state_buffers = lay_state(arena, params_, backend_.dtype());
    gradients_ = m.state_buffers.gradients, remainders_ = m.state_buffers.remainders;
    moment1_ = m.state_buffers.moment1, moment2_ = m.state_buffers.moment2;
  }
  m.workspace_arena = std::make_unique<Arena>("workspace", m.workspace.data, m.workspace.bytes);
  m.constants = lay_constants(*m.workspace_arena, config_, limits);
  const std::vector<float> rope = rope_table(config_, limits.max_length);
  backend_.copy_in(m.constants.rope, rope.data());
  backend_.synchronize();
  Arena rollout("rollout"), update("update");
  m.host.bytes = std::max(lay_rollout(rollout, config_, limits, backend_.dtype()).inputs.bytes(),
                          lay_update(update, config_, limits, backend_.dtype()).inputs.bytes());
  m.host.data = m.host.bytes ? backend_.allocate_host(m.host.bytes) : nullptr;
}

void Model::begin_rollout() {
  Impl& m = *impl_;
  CHECK(m.workspace_arena && limits_.batch > 0, "reserve() made no room for rollout");
  backend_.set_workspace(m.workspace_arena.get());
  Arena arena("rollout", m.shared.data, m.shared.bytes);
  m.rollout = lay_rollout(arena, config_, limits_, backend_.dtype());
  CHECK_EQ(arena.peak(), m.plan.rollout, "the plan says what is used");
  m.inputs = Inputs(backend_, m.rollout.inputs, m.host.data);
  m.decode_rows = 0;
  m.phase = Impl::Phase::rollout;
}

void Model::begin_update() {
  Impl& m = *impl_;
  CHECK(m.workspace_arena && limits_.pack_tokens > 0, "reserve() made no room for packs");
  backend_.set_workspace(m.workspace_arena.get());
  Arena arena("update", m.shared.data, m.shared.bytes);
  m.update = lay_update(arena, config_, limits_, backend_.dtype());
  CHECK_EQ(arena.peak(), m.plan.update, "the plan says what is used");
  m.inputs = Inputs(backend_, m.update.inputs, m.host.data);
  m.phase = Impl::Phase::update;
}

Model::UpdateResult Model::update(const AdamW& adamw) {
  Impl& m = *impl_;
  CHECK(limits_.train, "reserve() was told that there is no training");
  backend_.set_workspace(m.workspace_arena.get());
  const Tensor& norm2 = m.constants.norm2;
  backend_.zero(norm2);
  backend_.sum_of_squares(norm2, gradients_);  // padding between parameters is zero and stays so
  double sum = 0;
  const std::vector<Param>& all = params_.all;
  for (size_t i = 0; i < all.size();) {
    size_t end = i;
    while (end < all.size() && all[end].decayed == all[i].decayed) ++end;
    const int64_t begin = all[i].offset, count = (end < all.size() ? all[end].offset : params_.size) - begin;
    AdamW run = adamw;
    if (!all[i].decayed) run.weight_decay = 0;
    backend_.adamw(weights_.rows(begin, count), remainders_ ? remainders_.rows(begin, count) : Tensor(),
                   moment1_.rows(begin, count), moment2_.rows(begin, count), gradients_.rows(begin, count), norm2, run);
    i = end;
  }
  backend_.copy_out_now(&sum, norm2);
  return {std::sqrt(sum), std::isfinite(sum)};
}

std::vector<float> Model::masters() const {
  std::vector<float> out(static_cast<size_t>(params_.size));
  if (backend_.dtype() == DType::f32) {
    backend_.copy_out_now(out.data(), weights_);
    return out;
  }
  std::vector<bf16> weights(out.size());
  std::vector<int16_t> remainders(out.size());
  backend_.copy_out(weights.data(), weights_);
  if (remainders_) backend_.copy_out(remainders.data(), remainders_);
  backend_.synchronize();
  for (size_t i = 0; i < out.size(); ++i) out[i] = join_master(weights[i], remainders[i]);
  return out;
}

}  // namespace dapo
