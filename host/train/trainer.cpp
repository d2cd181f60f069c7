#include "host/train/trainer.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <future>

#include "core/nvtx.h"

namespace dapo {
namespace {

Model& reserved(Model& model, const ModelLimits& limits) {
  model.reserve(limits);
  return model;
}

/// None where every response shall run to its limit. `train`: its first prompt shows how prompts are written.
std::vector<int32_t> end_ids(const Config& config, const Model& model, const Tokenizer& tokenizer,
                             const Dataset& train) {
  if (config.rollout.ignore_eos) return {};
  const PromptEncoder encoder(config.data, config.model.path, tokenizer);
  return encoder.stop_ids(model.config(), train.size() > 0 ? encoder.encode(train[0]) : std::vector<int32_t>());
}

}  // namespace

int SampleGroup::correct() const {
  return static_cast<int>(std::count_if(samples.begin(), samples.end(), [](const Sample& s) { return s.verdict.acc; }));
}

Trainer::Trainer(const Config& config, Model& model, const Tokenizer& tokenizer, const Dataset& train,
                 Progress& progress)
    : config_(config),
      model_(model),
      train_(train),
      progress_(progress),
      cursor_(config.trainer.seed, std::max<size_t>(train.size(), 1), config.data.shuffle),
      rollout_(reserved(model, training_limits(config, model.config(), model.backend())),
               end_ids(config, model, tokenizer, train)),
      reward_(config.reward, tokenizer) {
  const PromptEncoder encoder(config.data, config.model.path, tokenizer);
  for (size_t i = 0; i < train.size(); ++i) {
    std::vector<int32_t> ids = encoder.encode(train[i]);
    const bool fits = !ids.empty() && static_cast<int>(ids.size()) <= config.data.max_prompt_length;
    if (!fits && config.data.overlong_prompts == OverlongPrompts::error)
      fail_input(
          "training row {}: a prompt of {} tokens, data.max_prompt_length is {} (or set data.overlong_prompts = "
          "\"drop\")",
          train[i].id, ids.size(), config.data.max_prompt_length);
    if (!fits) {
      ++dropped_;
      continue;
    }
    rows_.push_back(static_cast<int32_t>(i));
    prompts_.push_back(std::move(ids));
  }
  if (rows_.empty())
    fail_input("no training prompt is left: {} rows, {} longer than data.max_prompt_length = {}", train.size(),
               dropped_, config.data.max_prompt_length);
  cursor_ = Cursor(config.trainer.seed, rows_.size(), config.data.shuffle);
  state_.cursor = cursor_.state();
}

Trainer::~Trainer() = default;

bool Trainer::done() const {
  return state_.step >= config_.trainer.total_steps;
}

void Trainer::restore(TrainerState state) {
  cursor_.restore(state.cursor);
  state_ = std::move(state);
}

/// Algorithm 1 of arXiv 2503.14476.
StepMetrics Trainer::step() {
  const Stopwatch watch;
  StepMetrics m;
  m.step = state_.step + 1;
  m.lr = learning_rate(config_.actor, m.step, config_.trainer.total_steps);
  m.prompts_dropped = static_cast<int64_t>(dropped_);
  stats_ = {};
  agreement_ = {};
  grad_norms_ = 0;

  // 2-8. Prompts, G responses each from the present weights, rewards, dynamic sampling until the batch is full.
  sample_groups(m);
  if (after_rollout) after_rollout(groups_);

  // 9. Advantages of each group.
  set_advantages();

  // 3. Old log-probs are the rollout's own; recomputing them only measures the mismatch.
  const Stopwatch updating;
  model_.begin_update();
  if (config_.actor.old_logprobs == OldLogProbs::recompute) recompute_old_log_probs(m);

  // 10-11. Mini-batches in the order of generation; until the first update the weights are those that drew the
  // responses.
  const size_t per = static_cast<size_t>(config_.actor.ppo_mini_batch_size);
  for (int epoch = 0; epoch < config_.actor.ppo_epochs; ++epoch)
    for (size_t begin = 0; begin < groups_.size(); begin += per)
      update(begin, std::min(begin + per, groups_.size()), m);
  if (m.updates == 0) compare_a_fresh_group(m.step);
  m.phases[Phase::update].seconds = updating.seconds();

  summarize(m);
  ++state_.step;
  state_.cursor = cursor_.state();
  m.seconds = watch.seconds();
  return m;
}

void Trainer::sample_groups(StepMetrics& m) {
  const NvtxRange range("rollout");
  const Stopwatch watch;
  const size_t batch = static_cast<size_t>(config_.data.train_batch_size);
  groups_.clear();
  left_out_.clear();
  open_bank(m);

  Sampling sampling;
  sampling.temperature = config_.rollout.temperature;
  sampling.top_k = config_.rollout.top_k;
  sampling.top_p = config_.rollout.top_p;
  sampling.min_p = config_.rollout.min_p;
  sampling.seed = config_.trainer.seed;
  rollout_.begin(sampling);
  drawn_ = 0;
  const int64_t limit = prompt_limit(config_.algorithm, config_.data);
  while (groups_.size() < batch && drawn_ < limit) {
    const int need = static_cast<int>(batch - groups_.size());
    const int size = config_.data.gen_batch_size > 0   ? config_.data.gen_batch_size
                     : config_.algorithm.filter_groups ? generation_size(need, static_cast<int>(batch), state_.yield)
                                                       : need;
    generate(static_cast<int>(std::min<int64_t>(size, limit - drawn_)), m);
  }
  if (groups_.size() < batch)
    m.alarms.push_back(fmt::format(
        "{} of {} groups after {} prompts in {} generation batches (algorithm.max_num_gen_batches = {}): the step "
        "trains on those",
        groups_.size(), batch, drawn_, m.generation_batches, config_.algorithm.max_num_gen_batches));
  m.groups_banked = static_cast<int64_t>(state_.bank.size());
  const Rollout::Stats& s = rollout_.stats();
  m.phases[Phase::rollout] = {watch.seconds() - m.phases[Phase::reward].seconds, s.drawn_tokens, s.flops};
  m.preemptions = s.preemptions;
}

/// Groups that the last steps left over open the batch, unless they are too old.
void Trainer::open_bank(StepMetrics& m) {
  for (SampleGroup& g : state_.bank) {
    if (m.step - g.step > config_.algorithm.max_age) {
      ++m.groups_expired;
      left_out_.push_back(std::move(g));
    } else {
      groups_.push_back(std::move(g));
    }
  }
  state_.bank.clear();
  const size_t batch = static_cast<size_t>(config_.data.train_batch_size);
  if (groups_.size() > batch) {
    state_.bank.assign(std::make_move_iterator(groups_.begin() + static_cast<int64_t>(batch)),
                       std::make_move_iterator(groups_.end()));
    groups_.resize(batch);
  }
  m.groups_from_bank = static_cast<int64_t>(groups_.size());
}

void Trainer::generate(int prompts, StepMetrics& m) {
  const int n = config_.rollout.n;
  std::vector<SampleGroup> drawn(static_cast<size_t>(prompts));
  std::vector<std::future<std::vector<Verdict>>> verdicts(drawn.size());
  const int64_t before = rollout_.stats().finished, before_tokens = rollout_.stats().drawn_tokens;
  for (size_t i = 0; i < drawn.size(); ++i) {
    const size_t k = cursor_.next();
    drawn[i].row = rows_[k];
    drawn[i].step = static_cast<int32_t>(m.step);
    Request r;
    r.id = static_cast<int64_t>(i);
    r.prompt = prompts_[k];
    r.samples = n;
    r.max_new = config_.data.max_response_length;
    r.step = static_cast<int32_t>(m.step);
    r.prompt_key = drawn_++;
    rollout_.add(std::move(r));
  }
  while (rollout_.busy()) {
    for (Group& g : rollout_.advance()) {  // judged beside the generation of the others
      SampleGroup& d = drawn[static_cast<size_t>(g.id)];
      verdicts[static_cast<size_t>(g.id)] = reward_.judge(g.responses, train_[static_cast<size_t>(d.row)].answer);
      d.prompt = std::move(g.prompt);
      for (Response& r : g.responses) {
        d.samples.emplace_back();
        d.samples.back().response = std::move(r);
      }
    }
    progress_.report(Phase::rollout, rollout_.stats().finished - before, int64_t{n} * prompts,
                     rollout_.stats().drawn_tokens - before_tokens);
  }
  const Stopwatch waiting;
  const int64_t kept = m.groups_kept;
  for (size_t i = 0; i < drawn.size(); ++i) {  // in the order of the prompts, whichever was complete first
    const std::vector<Verdict> v = verdicts[i].get();
    for (size_t k = 0; k < v.size(); ++k) drawn[i].samples[k].verdict = v[k];
    file_group(std::move(drawn[i]), m);
  }
  add_batch(state_.yield, static_cast<int>(m.groups_kept - kept), prompts, config_.data.train_batch_size);
  const auto slow = static_cast<int64_t>(reward_.counters().slow);
  m.verifier_slow += slow - slow_;
  slow_ = slow;
  ++m.generation_batches;
  m.phases[Phase::reward].seconds += waiting.seconds();
  m.phases[Phase::reward].tokens += int64_t{n} * prompts;
}

/// Files a group whose verdicts are in: into the batch, the bank, or the bin; updates the counters.
void Trainer::file_group(SampleGroup group, StepMetrics& m) {
  const RewardSection& reward = config_.reward;
  std::vector<uint8_t> right;
  bool judged = true;
  for (Sample& s : group.samples) {
    const int length = static_cast<int>(s.response.ids.size());
    s.reward = s.verdict.score;
    s.shaped = s.reward;
    if (reward.overlong_buffer)
      s.shaped += overlong_penalty(length, config_.data.max_response_length, reward.overlong_buffer_len,
                                   reward.overlong_penalty_factor);
    right.push_back(s.verdict.acc);
    judged = judged && !s.verdict.error;
    m.verifier_errors += s.verdict.error;
    if (!s.verdict.error) {
      m.acc += s.verdict.acc;
      m.found += s.verdict.found;
      m.reward += s.reward;
      m.shaped_reward += s.shaped;
    }
    m.length_mean += length;
    m.length_max = std::max(m.length_max, static_cast<double>(length));
    m.truncated += s.response.finish == Finish::length;
  }
  ++m.groups_generated;
  if (!judged) {  // not all of its rewards are known: nothing to compare them with
    ++m.groups_unjudged;
    left_out_.push_back(std::move(group));
    return;
  }
  const int correct = group.correct();
  m.groups_right += correct == static_cast<int>(right.size());
  m.groups_wrong += correct == 0;
  if (config_.algorithm.filter_groups && !mixed_group(right)) {
    left_out_.push_back(std::move(group));
    return;
  }
  ++m.groups_kept;
  const size_t batch = static_cast<size_t>(config_.data.train_batch_size);
  if (groups_.size() < batch)
    groups_.push_back(std::move(group));
  else if (banks_surplus(config_.algorithm, config_.data) && state_.bank.size() < batch)  // what a step can use
    state_.bank.push_back(std::move(group));
  else {
    ++m.groups_dropped;
    left_out_.push_back(std::move(group));
  }
}

void Trainer::set_advantages() {
  for (SampleGroup& g : groups_) {
    std::vector<double> rewards;
    for (const Sample& s : g.samples) rewards.push_back(s.shaped);
    const std::vector<double> a = group_advantages(rewards, config_.algorithm.norm_adv_by_std);
    for (size_t i = 0; i < a.size(); ++i) g.samples[i].advantage = a[i];
  }
}

}  // namespace dapo
