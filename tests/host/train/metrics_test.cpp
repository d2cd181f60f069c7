// The tables of metrics: every figure that is written is on the page, and the page is the committed one.
#include "host/train/metrics.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "host/train/evaluate.h"
#include "host/train/metric_info.h"
#include "host/train/sft.h"

namespace dapo {
namespace {

TEST(Metrics, TheCommittedPageIsTheTables) {
  std::ifstream in("docs/metrics.md");
  ASSERT_TRUE(in) << "run the tests in the repository's root";
  std::ostringstream committed;
  committed << in.rdbuf();
  EXPECT_EQ(committed.str(), metrics_text()) << "run make docs";
}

TEST(Metrics, EveryFieldHasAUniqueNameAndALineOnThePage) {
  const std::string page = metrics_text();
  EvalResult eval;
  eval.sets.resize(1);
  eval.sets[0].pass = {{1, {0.25, 0.2, 0.3}}, {8, {0.5, 0.4, 0.6}}};
  eval.sets[0].maj_k = {{8, {0.55, 0.45, 0.65}}};
  StepMetrics step;
  step.terms = {{"verifier", 0.5}, {"format", 1}};
  for (const Fields& fields : {step.fields(), eval.fields(), SftMetrics().fields()}) {
    std::set<std::string> names;
    for (const auto& [name, value] : fields) {
      EXPECT_TRUE(names.insert(name).second) << name;
      const std::string shown = name.starts_with("eval/pass@")     ? "eval/pass@K" + name.substr(11)
                                : name.starts_with("eval/maj@")    ? "eval/maj@K" + name.substr(10)
                                : name.starts_with("reward/term/") ? "reward/term/NAME"
                                                                   : name;
      EXPECT_NE(page.find("`" + shown + "`"), std::string::npos) << name;
    }
  }
}

TEST(Metrics, FieldsAreTheMembers) {
  StepMetrics m;
  m.step = 7;
  m.groups_kept = 3;
  m.acc = 0.5;
  m.phases[Phase::update] = {.seconds = 2, .tokens = 10, .flops = 4e9};
  std::map<std::string, double> got;
  for (const auto& [name, value] : m.fields()) got[name] = value;
  EXPECT_EQ(got["step"], 7);
  EXPECT_EQ(got["groups/kept"], 3);
  EXPECT_EQ(got["reward/acc"], 0.5);
  EXPECT_EQ(got["update/rows_per_s"], 5);
  EXPECT_EQ(got["update/gflops"], 2);
  EXPECT_EQ(got["rollout/tokens_per_s"], 0);  // nothing was drawn
  EvalResult eval;
  eval.sets.resize(1);
  eval.sets[0].avg = {0.25, 0.2, 0.3};
  eval.sets[0].pass = {{1, {0.25, 0.2, 0.3}}, {8, {0.5, 0.4, 0.6}}};
  eval.sets[0].maj_k = {{8, {0.55, 0.45, 0.65}}};
  got.clear();
  for (const auto& [name, value] : eval.fields()) got[name] = value;
  EXPECT_EQ(got["eval/avg"], 0.25);
  EXPECT_EQ(got["eval/high"], 0.3);
  EXPECT_EQ(got["eval/pass@1"], 0.25);
  EXPECT_EQ(got["eval/pass@8_low"], 0.4);
  EXPECT_EQ(got["eval/pass@8_high"], 0.6);
  EXPECT_EQ(got["eval/maj@8"], 0.55);
  EXPECT_EQ(got["eval/maj@8_low"], 0.45);
  EXPECT_EQ(metric_info("eval/amc23/maj@8_low")->unit, "share");
}

}  // namespace
}  // namespace dapo
