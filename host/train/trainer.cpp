#include "host/train/trainer.h"

#include <algorithm>

#include "core/nvtx.h"
#include "host/train/draw.h"
#include "host/train/prompts.h"

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
                 Progress& progress)
    : config_(config),
      memory_(weights, training_limits(config, weights.config(), weights.backend())),
      decoder_(memory_),
      learner_(memory_),
      train_(train),
      progress_(progress),
      rollout_(decoder_, end_ids(config, weights.config(), tokenizer, train)),
      reward_(config.reward, tokenizer),
      prompts_(encode_prompts(config.data, make_encoder(config, tokenizer), train, "training")),
      cursor_(config.trainer.seed, prompts(), config.data.shuffle) {
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

/// Algorithm 1 of arXiv 2503.14476, numbered as in docs/step.md.
StepMetrics Trainer::step() {
  const Stopwatch whole;
  begin_step();
  {
    const NvtxRange range("rollout");
    const Stopwatch drawing;
    open_bank();
    rollout_.begin(sampling_of(config_));
    while (const int count = prompts_to_draw()) {
      // 1. Prompts.
      std::vector<Group> drawn = next_prompts(count);

      // 2. Responses: G to each prompt, from the current weights, judged as they become complete.
      PhaseTimes::Row& reward = sums_.phases[Phase::reward];
      reward.seconds +=
          draw_and_judge(drawn, train_, {config_.rollout.n, config_.data.max_response_length, Phase::rollout}, rollout_,
                         reward_, progress_);
      reward.tokens += int64_t{config_.rollout.n} * count;

      // 3. Dynamic sampling: groups of right and wrong responses, until the batch is full.
      const int64_t kept = sums_.groups_kept;
      for (Group& g : drawn) file_group(std::move(g));
      add_batch(state_.yield, sums_.groups_kept - kept, count, config_.data.train_batch_size);
    }
    end_rollout(drawing.seconds());
  }
  if (after_rollout) after_rollout(groups_);

  // 4. Advantages.
  set_advantages(groups_, config_.algorithm, config_.rollout.n);

  // 5. Mini-batches, in the order of generation. Until the first update the weights are those that drew the responses.
  const Stopwatch updating;
  learner_.begin();
  if (config_.actor.old_logprobs == OldLogProbs::recompute) recompute_old_log_probs();
  if (config_.actor.kl_loss_coef > 0) score_reference();
  const size_t size = config_.actor.ppo_mini_batch_size;
  for (int epoch = 0; epoch < config_.actor.ppo_epochs; ++epoch)
    for (size_t begin = 0; begin < groups_.size(); begin += size) {
      const NvtxRange range("update");
      std::vector<MicroBatch> mini_batch = pack(begin, std::min(begin + size, groups_.size()));
      if (mini_batch.empty()) continue;  // every response is masked

      // 6. Forward and backward. 7. Update, unless a number is not finite.
      LossStats loss = sums_.loss;
      if (forward_backward(mini_batch, begin, loss)) update(loss);
    }
  if (sums_.updates == 0) compare_one_group();
  sums_.phases[Phase::update].seconds = updating.seconds();

  ++state_.step;
  state_.cursor = cursor_.state();
  StepMetrics m = summarize();
  raise_alarms(m);
  m.seconds = whole.seconds();
  return m;
}

void Trainer::begin_step() {
  groups_.clear();
  left_out_.clear();
  drawn_ = 0;
  sums_ = {};
  sums_.step = state_.step + 1;
  sums_.lr = learning_rate(config_.actor, sums_.step, config_.trainer.total_steps);
  sums_.prompts_dropped = prompts_.dropped;
}

/// Opens the batch with the groups that earlier steps left over, unless they are too old.
void Trainer::open_bank() {
  const size_t batch = config_.data.train_batch_size;
  std::vector<Group> bank = std::exchange(state_.bank, {});
  for (Group& g : bank) {
    const bool expired = sums_.step - g.step > config_.algorithm.max_age;
    sums_.groups_expired += expired;
    (expired ? left_out_ : groups_.size() < batch ? groups_ : state_.bank).push_back(std::move(g));
  }
  sums_.groups_from_bank = groups_.size();
}

/// Prompts of the next generation batch; 0 if the batch is full or the step has drawn all that it may.
int Trainer::prompts_to_draw() const {
  const int batch = config_.data.train_batch_size, need = batch - std::ssize(groups_);
  const int64_t left = prompt_limit(config_.algorithm, config_.data) - drawn_;
  if (need <= 0 || left <= 0) return 0;
  const int size = config_.data.gen_batch_size > 0   ? config_.data.gen_batch_size
                   : config_.algorithm.filter_groups ? generation_size(need, batch, state_.yield)
                                                     : need;
  return std::min<int64_t>(size, left);
}

std::vector<Group> Trainer::next_prompts(int count) {
  std::vector<Group> groups(count);
  for (Group& g : groups) {
    const size_t i = cursor_.next();
    g.example = prompts_.examples[i];
    g.prompt = prompts_.ids[i];
    g.step = sums_.step;
    g.prompt_key = drawn_++;
  }
  ++sums_.generation_batches;
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
    if (!s.verdict.error) {
      sums_.right += s.verdict.acc;
      sums_.found += s.verdict.found;
      sums_.reward += s.reward;
      sums_.shaped_reward += s.shaped;
    }
    sums_.length += length;
    sums_.length_max = std::max<double>(sums_.length_max, length);
    sums_.truncated += s.response.finish == Finish::length;
  }
  ++sums_.groups_generated;
  if (!judged) {  // its mean reward is not known
    ++sums_.groups_unjudged;
    left_out_.push_back(std::move(group));
    return;
  }
  const int correct = group.correct();
  sums_.groups_right += correct == std::ssize(right);
  sums_.groups_wrong += correct == 0;
  if (config_.algorithm.filter_groups && !mixed_group(right)) {
    left_out_.push_back(std::move(group));
    return;
  }
  ++sums_.groups_kept;
  const size_t batch = config_.data.train_batch_size;
  if (groups_.size() < batch) {
    groups_.push_back(std::move(group));
  } else if (banks_surplus(config_.algorithm, config_.data) && state_.bank.size() < batch) {  // all that a step can use
    state_.bank.push_back(std::move(group));
  } else {
    ++sums_.groups_dropped;
    left_out_.push_back(std::move(group));
  }
}

/// `seconds`: since the step began to draw.
void Trainer::end_rollout(double seconds) {
  if (std::ssize(groups_) < config_.data.train_batch_size)
    sums_.alarms.push_back(fmt::format(
        "{} of {} groups after {} prompts in {} generation batches (algorithm.max_num_gen_batches = {}): the step "
        "trains on those",
        groups_.size(), config_.data.train_batch_size, drawn_, sums_.generation_batches,
        config_.algorithm.max_num_gen_batches));
  sums_.groups_banked = state_.bank.size();
  sums_.verifier_slow = reward_.counters().slow - slow_;
  slow_ += sums_.verifier_slow;
  const Rollout::Stats& s = rollout_.stats();
  sums_.phases[Phase::rollout] = {seconds - sums_.phases[Phase::reward].seconds, s.drawn_tokens, s.flops};
  sums_.preemptions = s.preemptions;
}

}  // namespace dapo
