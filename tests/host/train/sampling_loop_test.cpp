// Dynamic sampling without a model: how many generation batches and prompts a step needs at a known yield, with the
// functions that the trainer calls. DAPO_SAMPLING_LOOP=FILE writes the figures (docs/dapo.md).
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <random>

#include "host/train/objective.h"

namespace dapo {
namespace {

/// A setting: every group drawn in step s is kept with probability yield + drift * (s - 1).
struct Setting {
  double yield, drift;
  DataSection data;
  AlgorithmSection algorithm;
  Setting(double y, int batch, double d = 0) : yield(y), drift(d) { data.train_batch_size = batch; }
  /// As verl's recipe: batches of three times the step's prompts, surplus dropped.
  Setting fixed(Surplus surplus = Surplus::drop) const {
    Setting setting = *this;
    setting.data.gen_batch_size = 3 * data.train_batch_size;
    setting.algorithm.surplus = surplus;
    return setting;
  }
};

struct Measured {
  double first = 0, later = 0;  ///< generation batches of the first step and of the later ones, means
  int first_most = 0, later_most = 0;
  int unfilled = 0;                ///< steps
  double idle = 0;                 ///< share of the later steps that draw nothing, as the bank is enough
  double prompts = 0, bank = 0;    ///< drawn in a later step, kept for the next one; means, in batches
  double age = 0;                  ///< steps since the groups trained on were drawn, mean of the later steps
  int age_most = 0, smallest = 0;  ///< smallest: prompts of a generation batch
};

/// The trainer's loop (steps 1 to 3 of Trainer::step) with a coin for each group.
class Loop {
 public:
  Loop(const Setting& setting, uint64_t seed) : setting_(setting), random_(seed) {}

  void step(Measured& m) {
    ++step_;
    std::vector<int> groups;  // steps that drew them
    open_bank(groups);
    const size_t batch = setting_.data.train_batch_size;
    const int64_t limit = prompt_limit(setting_.algorithm, setting_.data);
    int64_t drawn = 0;
    int batches = 0;
    while (groups.size() < batch && drawn < limit) {
      const int need = batch - groups.size();
      const int size = setting_.data.gen_batch_size > 0 ? setting_.data.gen_batch_size
                                                        : generation_size(need, setting_.data.train_batch_size, yield_);
      const int prompts = std::min<int64_t>(size, limit - drawn);
      generate(prompts, groups);
      m.smallest = m.smallest == 0 ? prompts : std::min(m.smallest, prompts);
      drawn += prompts;
      ++batches;
    }
    m.unfilled += groups.size() < batch;
    for (const int s : groups) m.age_most = std::max(m.age_most, step_ - s);
    if (step_ == 1) {
      m.first += batches;
      m.first_most = std::max(m.first_most, batches);
      return;
    }
    m.later += batches;
    m.idle += batches == 0;
    m.later_most = std::max(m.later_most, batches);
    m.prompts += double(drawn) / batch;
    m.bank += double(bank_.size()) / batch;
    double age = 0;
    for (const int s : groups) age += step_ - s;
    m.age += groups.empty() ? 0 : age / groups.size();
  }

 private:
  void open_bank(std::vector<int>& groups) {
    const size_t batch = setting_.data.train_batch_size;
    std::vector<int> left;
    for (const int s : bank_)
      if (step_ - s <= setting_.algorithm.max_age) (groups.size() < batch ? groups : left).push_back(s);
    bank_ = left;
  }

  void generate(int prompts, std::vector<int>& groups) {
    const size_t batch = setting_.data.train_batch_size;
    const uint64_t below = std::ldexp(setting_.yield + setting_.drift * (step_ - 1), 64);
    int kept = 0;
    for (int i = 0; i < prompts; ++i) {
      if (random_() >= below) continue;
      ++kept;
      if (groups.size() < batch)
        groups.push_back(step_);
      else if (banks_surplus(setting_.algorithm, setting_.data) && bank_.size() < batch)
        bank_.push_back(step_);
    }
    add_batch(yield_, kept, prompts, setting_.data.train_batch_size);
  }

  const Setting setting_;
  std::mt19937_64 random_;
  YieldEstimate yield_;
  std::vector<int> bank_;
  int step_ = 0;
};

Measured simulate(const Setting& setting, int seeds, int steps) {
  Measured m;
  for (int seed = 0; seed < seeds; ++seed) {
    Loop loop(setting, seed);
    for (int s = 0; s < steps; ++s) loop.step(m);
  }
  const double later = std::max(1, seeds * (steps - 1));
  m.first /= seeds;
  for (double* mean : {&m.later, &m.idle, &m.prompts, &m.bank, &m.age}) *mean /= later;
  return m;
}

constexpr int kBatches[] = {32, 512};
constexpr double kYields[] = {0.1, 0.2, 0.3, 0.6, 0.9};
constexpr double kDrift = -0.004;  // 0.4 points of yield a step, as problems become too easy

/// One line a setting, for the figure.
void record(const char* scheme, const Setting& setting, const Measured& m) {
  const char* path = std::getenv("DAPO_SAMPLING_LOOP");
  if (path == nullptr) return;
  static std::ofstream out(path);
  static const bool header = static_cast<bool>(
      out << "scheme,batch,yield,drift,first,first_most,later,later_most,idle,unfilled,prompts,bank,age,age_most\n");
  ASSERT_TRUE(header && out) << path;
  out << scheme << ',' << setting.data.train_batch_size << ',' << setting.yield << ',' << setting.drift << ','
      << m.first << ',' << m.first_most << ',' << m.later << ',' << m.later_most << ',' << m.idle << ',' << m.unfilled
      << ',' << m.prompts << ',' << m.bank << ',' << m.age << ',' << m.age_most << std::endl;
}

TEST(SamplingLoop, TheFirstStepFillsWithinThreeBatches) {
  for (const int batch : kBatches)
    for (const double yield : {0.3, 0.6, 0.9}) {
      const Measured m = simulate(Setting(yield, batch), 300, 1);
      EXPECT_LE(m.first_most, 3) << batch << " " << yield;
      EXPECT_LE(m.first, 2.1) << batch << " " << yield;
      EXPECT_EQ(m.unfilled, 0) << batch << " " << yield;
    }
}

TEST(SamplingLoop, LaterStepsNeedOneBatch) {
  for (const int batch : kBatches)
    for (const double yield : kYields)
      for (const double drift : {0.0, kDrift}) {
        if (drift < 0 && yield < 0.2) continue;  // would be below 0.1 within these steps
        const Setting setting(yield, batch, drift);
        const Measured m = simulate(setting, 100, 21);
        record("expected", setting, m);
        SCOPED_TRACE(fmt::format("batch {}, yield {}, drift {}", batch, yield, drift));
        EXPECT_LE(m.later, 1.1);
        EXPECT_LE(m.later_most, 3);
        EXPECT_LE(m.first_most, 4);
        EXPECT_EQ(m.unfilled, 0);
        EXPECT_LE(m.age_most, setting.algorithm.max_age);
        EXPECT_LT(m.bank, batch == 32 ? 0.6 : 0.2);
        EXPECT_GE(m.smallest, batch / 8);  // no batch for one or two prompts
        // The surplus is trained on in the next step, so the mean is what the yield demands.
        if (drift == 0) {
          EXPECT_NEAR(m.prompts, 1 / yield, 0.04 / yield);
        }
      }
}

TEST(SamplingLoop, FixedBatchesThatDropTheirSurplus) {
  for (const int batch : kBatches)
    for (const double yield : kYields) {
      const Setting setting = Setting(yield, batch).fixed();
      const Measured m = simulate(setting, 100, 21);
      record("fixed", setting, m);
      SCOPED_TRACE(fmt::format("batch {}, yield {}", batch, yield));
      EXPECT_EQ(m.age_most, 0);
      EXPECT_EQ(m.bank, 0);
      EXPECT_DOUBLE_EQ(m.prompts, 3 * m.later);
      if (batch == 512) {  // large enough that a batch's share hardly varies
        EXPECT_NEAR(m.later, std::ceil(1 / (3 * yield)), 0.01);
      }
      // The same batches with a bank save prompts at high yields, for groups that are a step old.
      const Measured banked = simulate(Setting(yield, batch).fixed(Surplus::bank), 100, 21);
      record("fixed with bank", setting, banked);
      EXPECT_LE(banked.prompts, m.prompts);
      EXPECT_LE(banked.age_most, 1);
    }
}

TEST(SamplingLoop, TheLimitCountsPromptsAndEndsTheStep) {
  for (const bool fixed : {false, true}) {
    Setting setting(0.01, 32);
    if (fixed) setting = setting.fixed();
    const Measured m = simulate(setting, 50, 11);
    EXPECT_GT(m.unfilled, 500);  // of 550: 960 prompts keep about 10 groups
    EXPECT_NEAR(m.prompts, 30, 0.2);
    EXPECT_LE(m.later_most, 10);
  }
}

}  // namespace
}  // namespace dapo
