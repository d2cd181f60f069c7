#include "host/train/trainer.h"

#include <algorithm>

#include "core/check.h"
#include "core/nvtx.h"
#include "core/sizes.h"
#include "data/random.h"
#include "host/train/draw.h"
#include "host/train/prompts.h"
#include "host/train/share.h"

namespace dapo {
namespace {

PromptEncoder make_encoder(const Config& config, const Tokenizer& tokenizer) {
  return {config.data, config.model.path, tokenizer};
}

/// None if every response shall run to its limit. The first prompt of `train` shows how prompts are written.
std::vector<int32_t> end_ids(const Config& config, const ModelConfig& model, const Tokenizer& tokenizer,
                             const Dataset& train) {
  if (config.rollout.ignore_eos) return {};
  const PromptEncoder encoder = make_encoder(config, tokenizer);
  return encoder.stop_ids(model, train.size() > 0 ? encoder.encode(train[0]) : std::vector<int32_t>());
}

Sampling sampling_of(const Config& config) {
  const RolloutSection& r = config.rollout;
  return {
      .temperature = r.temperature, .top_k = r.top_k, .top_p = r.top_p, .min_p = r.min_p, .seed = config.trainer.seed};
}

std::unique_ptr<Comm> make_alone(Backend& backend) {
  return std::make_unique<SingleComm>(
      [](void* context, const Tensor& to, const Tensor& from) { static_cast<Backend*>(context)->copy(to, from); },
      &backend);
}

/// The first rank's limits, as its memory allows: how groups are cut and packed must not differ.
ModelLimits shared_limits(const Config& config, const Weights& weights, const Grid& grid) {
  ModelLimits limits = value_of_first(grid.world, training_limits(config, weights.config(), weights.backend()));
  limits.tensor = weights.tensor_rank();
  return limits;
}

void set_advantages(std::vector<Group>& groups, const AlgorithmSection& algorithm, int n) {
  std::vector<double> rewards;
  std::vector<int> tokens;
  for (const Group& g : groups) CHECK_EQ(std::ssize(g.samples), n, "the advantages of a group need all of it");
  for (const Group& g : groups)
    for (const Sample& s : g.samples) rewards.push_back(s.shaped), tokens.push_back(s.response.ids.size());
  const std::vector<double> advantages = step_advantages(algorithm, rewards, tokens, n);
  auto next = advantages.begin();
  for (Group& g : groups)
    for (Sample& s : g.samples) s.advantage = *next++;
}

}  // namespace

Trainer::Trainer(const Config& config, Weights& weights, const Tokenizer& tokenizer, const Dataset& train,
                 Progress& progress, const Grid* grid, Comm* device_data)
    : config_(config),
      alone_(grid == nullptr ? make_alone(weights.backend()) : nullptr),
      grid_(grid == nullptr ? Grid{*alone_, *alone_, *alone_} : *grid),
      memory_(weights, shared_limits(config, weights, grid_), device_data == nullptr ? &grid_.data : device_data),
      decoder_(memory_),
      learner_(memory_),
      train_(train),
      progress_(progress),
      rollout_(decoder_, end_ids(config, weights.config(), tokenizer, train)),
      reward_(grid_.leads() ? std::make_unique<Reward>(config.reward, tokenizer) : nullptr),
      prompts_(encode_prompts(config.data, make_encoder(config, tokenizer), train, "training")),
      cursor_(config.trainer.seed, prompts(), config.data.shuffle) {
  state_.cursor = cursor_.state();
  state_.prompts.resize(train.size());
}

Trainer::~Trainer() = default;

bool Trainer::done() const {
  return state_.step >= config_.trainer.total_steps;
}

TrainerState Trainer::snapshot() const {
  if (now_.stage != StepState::done) return state_;
  return {state_.step,       state_.updates, state_.refused, state_.cursor, state_.yield, state_.bank,
          state_.unfinished, state_.alarms,  state_.prompts, state_.solved, StepState()};
}

void Trainer::restore(TrainerState state) {
  cursor_.restore(state.cursor);
  state_ = std::move(state);
}

uint64_t Trainer::prompts_hash() const {
  uint64_t h = hash64("");
  const auto add = [&h](const void* p, size_t bytes) { h = hash64({static_cast<const char*>(p), bytes}, h); };
  for (const std::vector<int32_t>& ids : prompts_.ids) {
    const uint64_t count = ids.size();
    add(&count, sizeof count);
    add(ids.data(), ids.size() * sizeof(int32_t));
  }
  return h;
}

namespace {

/// Adds the seconds of its life to a sum.
class AddSeconds {
 public:
  explicit AddSeconds(double& sum) : sum_(sum) {}
  ~AddSeconds() { sum_ += watch_.seconds(); }
  AddSeconds(const AddSeconds&) = delete;
  AddSeconds& operator=(const AddSeconds&) = delete;

 private:
  double& sum_;
  const Stopwatch watch_;
};

}  // namespace

/// Algorithm 1 of arXiv 2503.14476, numbered as in docs/step.md.
StepMetrics Trainer::step() {
  {
    const AddSeconds timer(now_.seconds);
    if (now_.stage == StepState::done) begin_step();
    if (now_.stage == StepState::rollout) {
      roll_out();
      if (after_rollout) after_rollout(now_.groups);

      // 4. Advantages.
      set_advantages(now_.groups, config_.algorithm, config_.rollout.n);
    }
    update_weights();
  }
  now_.stage = StepState::done;
  ++state_.step;
  StepMetrics m = summarize();
  m.alarms = raise_alarms(config_, learner_.config().vocab, m, state_.alarms);
  m.seconds = now_.seconds;
  return m;
}

void Trainer::begin_step() {
  now_ = {};
  now_.stage = StepState::rollout;
  sums_.step = state_.step + 1;
  sums_.lr = learning_rate(config_.actor, sums_.step, config_.trainer.total_steps);
  sums_.prompts_dropped = prompts_.dropped;
  if (const size_t terms = config_.reward.terms.size(); terms > 0) sums_.terms.assign(1 + terms, 0.0);
  open_bank();
}

void Trainer::roll_out() {
  const NvtxRange range("rollout");
  {
    const AddSeconds timer(now_.rollout_seconds);
    rollout_.begin(sampling_of(config_));
    rollout_.resume_stats(now_.rollout_stats);
    while (std::ssize(now_.groups) < config_.data.train_batch_size) {
      // 1. Prompts: first those whose responses an earlier step left unfinished.
      if (now_.drawing.empty()) {
        now_.drawing = std::exchange(state_.unfinished, {});
        const int count = prompts_to_draw() - std::ssize(now_.drawing);
        for (Group& g : next_prompts(std::max(0, count))) now_.drawing.push_back(std::move(g));
      }
      if (now_.drawing.empty()) break;
      draw_generation_batch();
    }
  }
  end_rollout();
}

/// Draws the responses to now_.drawing, and files the groups.
void Trainer::draw_generation_batch() {
  const int64_t kept = sums_.groups_kept, generated = sums_.groups_generated, batch = config_.data.train_batch_size;
  DrawOptions options{config_.rollout.n, config_.data.max_response_length, Phase::rollout};
  if (config_.rollout.partial)  // 3. below, as each group is complete, until the batch is full
    options.on_group = [&](Group& g) {
      file_group(std::move(g));
      return std::ssize(now_.groups) == batch;
    };
  const auto drop_filed = [this] { std::erase_if(now_.drawing, [](const Group& g) { return g.samples.empty(); }); };

  // 2. Responses: G to each prompt, from the current weights, judged as they become complete.
  PhaseTimes::Row& reward = sums_.phases[Phase::reward];
  try {
    options.grid = &grid_;
    reward.seconds += draw_and_judge(now_.drawing, train_, options, rollout_, reward_.get(), progress_);
  } catch (...) {
    now_.rollout_stats = rollout_.stats();
    drop_filed();
    throw;
  }

  // 3. Dynamic sampling: groups of right and wrong responses, until the batch is full.
  if (config_.rollout.partial) {
    drop_filed();
    state_.unfinished = std::exchange(now_.drawing, {});
  }
  for (Group& g : now_.drawing) file_group(std::move(g));
  now_.drawing.clear();
  const int64_t count = sums_.groups_generated - generated;
  reward.tokens += config_.rollout.n * count;
  add_batch(state_.yield, sums_.groups_kept - kept, count, batch);
}

/// 5. Mini-batches, in the order of generation. Until the first update the weights are those that drew the responses.
void Trainer::update_weights() {
  {
    const AddSeconds timer(now_.update_seconds);
    learner_.begin();
    if (now_.stage == StepState::rollout && config_.actor.old_logprobs == OldLogProbs::recompute)
      recompute_old_log_probs();
    if (config_.actor.kl_loss_coef > 0) score_reference();
    now_.stage = StepState::update;
    const size_t size = config_.actor.ppo_mini_batch_size, groups = now_.groups.size();
    const int an_epoch = ceil_div(groups, size);
    for (int& i = now_.mini_batches; i < config_.actor.ppo_epochs * an_epoch; ++i) {
      const NvtxRange range("update");
      const size_t begin = i % an_epoch * size;
      MiniBatch mini_batch = pack(begin, std::min(begin + size, groups));
      if (mini_batch.tokens == 0) continue;  // every response is masked

      // 6. Forward and backward. 7. Update, unless a number is not finite.
      const StepSums before = sums_;
      try {
        LossStats loss = sums_.loss;
        if (forward_backward(mini_batch, begin, loss)) update(loss);
        if (sums_.updates_refused > before.updates_refused) report_refusal(before);
      } catch (const Error& e) {
        if (e.code() == kExitNumerics) report_refusal(before);
        if (e.code() == kExitInterrupted) {  // the mini-batch will be done again
          sums_ = before;
          learner_.zero_gradients();
        }
        throw;
      }
    }
    if (sums_.updates == 0) compare_one_group();
  }
  sums_.phases[Phase::update].seconds = now_.update_seconds;
}

/// `before`: the sums as the mini-batch began.
void Trainer::report_refusal(const StepSums& before) {
  if (!on_refused) return;
  const StepSums after = std::exchange(sums_, before);
  const int64_t refused = std::exchange(state_.refused, state_.refused - 1);
  on_refused(state_);
  sums_ = after;
  state_.refused = refused;
}

/// Begins the batch with the groups that earlier steps left over, unless they are too old.
void Trainer::open_bank() {
  const size_t batch = config_.data.train_batch_size;
  std::vector<Group> bank = std::exchange(state_.bank, {});
  for (Group& g : bank) {
    const bool expired = sums_.step - g.step > config_.algorithm.max_age;
    sums_.groups_expired += expired;
    (expired ? now_.left_out : now_.groups.size() < batch ? now_.groups : state_.bank).push_back(std::move(g));
  }
  sums_.groups_from_bank = now_.groups.size();
  for (Group& g : std::exchange(state_.unfinished, {})) {
    const bool expired = sums_.step - g.step > config_.algorithm.max_age;
    sums_.groups_expired += expired;
    if (!expired) state_.unfinished.push_back(std::move(g));
  }
}

/// Prompts of the next generation batch; 0 if the batch is full or the step has drawn all that it may.
int Trainer::prompts_to_draw() const {
  const int batch = config_.data.train_batch_size, need = batch - std::ssize(now_.groups);
  const int64_t left = prompt_limit(config_.algorithm, config_.data) - now_.drawn;
  if (need <= 0 || left <= 0 || nothing_left_to_learn()) return 0;
  const int size = config_.data.gen_batch_size > 0   ? config_.data.gen_batch_size
                   : config_.algorithm.filter_groups ? generation_size(need, batch, state_.yield)
                                                     : need;
  // Where the last step found nearly everything right, a batch shows first whether that still holds.
  const bool probes = state_.solved && now_.drawn < batch;
  return std::min<int64_t>(probes ? std::min(size, batch) : size, left);
}

/// Whether nearly all groups of this step are all right: the rest of the batch would cost thousands of responses.
bool Trainer::nothing_left_to_learn() const {
  const int64_t judged = sums_.groups_generated - sums_.groups_unjudged;
  return config_.algorithm.filter_groups && judged >= config_.data.train_batch_size &&
         sums_.groups_right > config_.algorithm.stop_when_solved * judged;
}

/// The place in prompts_ of the next prompt that is not passed over; after a whole epoch of those, simply the next.
size_t Trainer::next_prompt() {
  size_t i = cursor_.next();
  for (size_t skipped = 0;
       skipped < prompts() && passes_over(state_.prompts[prompts_.examples[i]], config_.algorithm.skip_solved,
                                          config_.trainer.seed, cursor_.state().epoch, prompts_.examples[i]);
       ++skipped) {
    ++sums_.prompts_skipped;
    i = cursor_.next();
  }
  return i;
}

std::vector<Group> Trainer::next_prompts(int count) {
  std::vector<Group> groups(count);
  for (Group& g : groups) {
    const size_t i = next_prompt();
    g.example = prompts_.examples[i];
    g.prompt = prompts_.ids[i];
    g.step = sums_.step;
    g.prompt_key = now_.drawn++;
  }
  sums_.generation_batches += count > 0;
  state_.cursor = cursor_.state();
  return groups;
}

/// Files a judged group: into the batch, the bank, or what is left out; updates the counters.
void Trainer::file_group(Group group) {
  const RewardSection& reward = config_.reward;
  std::vector<uint8_t> right;
  bool judged = true;
  for (Sample& s : group.samples) {
    const int length = s.response.ids.size();
    s.reward = s.verdict.score;
    s.shaped = s.reward;
    if (reward.overlong_buffer)
      s.shaped += overlong_penalty(length, config_.data.max_response_length, reward.overlong_buffer_len,
                                   reward.overlong_penalty_factor);
    right.push_back(s.verdict.acc);
    judged = judged && !s.verdict.error;
    sums_.verifier_errors += s.verdict.error;
    if (s.verdict.error && sums_.first_error.empty()) sums_.first_error = s.verdict.reason;
    if (!s.verdict.error) {
      sums_.right += s.verdict.acc;
      sums_.found += s.verdict.found;
      sums_.reward += s.reward;
      sums_.shaped_reward += s.shaped;
      for (size_t i = 0; i < sums_.terms.size(); ++i) sums_.terms[i] += s.verdict.terms[i];
    }
    sums_.length += length;
    sums_.length_max = std::max<double>(sums_.length_max, length);
    sums_.truncated += s.response.finish == Finish::length;
  }
  ++sums_.groups_generated;
  if (!judged) {  // its mean reward is not known
    ++sums_.groups_unjudged;
    now_.left_out.push_back(std::move(group));
    return;
  }
  const int correct = group.correct();
  add_visit(state_.prompts[group.example], correct, right.size());
  sums_.groups_right += correct == std::ssize(right);
  sums_.groups_wrong += correct == 0;
  if (config_.algorithm.filter_groups && !mixed_group(right)) {
    now_.left_out.push_back(std::move(group));
    return;
  }
  ++sums_.groups_kept;
  const size_t batch = config_.data.train_batch_size;
  if (now_.groups.size() < batch) {
    now_.groups.push_back(std::move(group));
  } else if (banks_surplus(config_.algorithm, config_.data) && state_.bank.size() < batch) {  // all that a step can use
    state_.bank.push_back(std::move(group));
  } else {
    ++sums_.groups_dropped;
    now_.left_out.push_back(std::move(group));
  }
}

void Trainer::end_rollout() {
  if (std::ssize(now_.groups) < config_.data.train_batch_size && nothing_left_to_learn())
    sums_.alarms.push_back(fmt::format(
        "{} of {} groups are all right (algorithm.stop_when_solved = {:g}): the step trains on the {} that are not",
        sums_.groups_right, sums_.groups_generated, config_.algorithm.stop_when_solved, now_.groups.size()));
  else if (std::ssize(now_.groups) < config_.data.train_batch_size)
    sums_.alarms.push_back(fmt::format(
        "{} of {} groups after {} prompts in {} generation batches (algorithm.max_num_gen_batches = {}): the step "
        "trains on those",
        now_.groups.size(), config_.data.train_batch_size, now_.drawn, sums_.generation_batches,
        config_.algorithm.max_num_gen_batches));
  state_.solved = nothing_left_to_learn();
  sums_.groups_banked = state_.bank.size();
  sums_.groups_unfinished = state_.unfinished.size();
  const int64_t slow = reward_ ? reward_->counters().slow : 0;
  for (const int64_t own : gather_values(grid_.world, slow - std::exchange(slow_, slow))) sums_.verifier_slow += own;
  const Rollout::Stats& s = rollout_.stats();
  sums_.phases[Phase::rollout] = {now_.rollout_seconds - sums_.phases[Phase::reward].seconds, s.drawn_tokens, s.flops};
  sums_.preemptions = s.preemptions;
}

}  // namespace dapo
