// dapo report on folders as runs leave them: unfinished, resumed, damaged, huge, and with responses that attack the page.
#include "host/app/report.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "host/app/chart.h"
#include "host/app/html.h"
#include "tests/testdata.h"

namespace dapo {
namespace {

namespace fs = std::filesystem;

size_t count(const std::string& text, std::string_view part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + part.size())) ++n;
  return n;
}

std::string metrics_line(int step, double acc) {
  return fmt::format(
      R"({{"step": {}, "seconds": 2.5, "lr": 1e-06, "reward/mean": {}, "reward/acc": {}, "response/length_mean": 100, )"
      R"("rollout/seconds": 1, "update/seconds": 1.5, "rollout/gflops": 50, "update/gflops": 80, "update/entropy": 0.5, )"
      R"("update/mismatch": 0, "update/mismatch_tokens": 10, "alarms": []}})"
      "\n",
      step, 2 * acc - 1, acc);
}

class ReportTest : public ::testing::Test {
 protected:
  /// A run of so many steps under this name.
  std::string make_run(const std::string& name, int steps) {
    std::string lines = R"({"step": 0, "eval/n": 1, "eval/avg": 0.25, "eval/low": 0.2, "eval/high": 0.3})"
                        "\n";
    for (int step = 1; step <= steps; ++step) lines += metrics_line(step, step / (steps + 1.0));
    scratch_.write(name + "/metrics.jsonl", lines);
    scratch_.write(name + "/config.resolved.cfg", fmt::format("[actor]\nlr = {}\n\n[trainer]\ntotal_steps = {}\n",
                                                              name == "a" ? "1e-06" : "2e-06", steps));
    scratch_.write(name + "/dapo.json", R"({"program": "dapo_train", "version": "0.1", "product_gflops": 100})");
    return scratch_.path(name);
  }
  std::string page(const std::vector<std::string>& runs) {
    return slurp(write_report(runs, scratch_.path("out.html")));
  }
  /// Expects that the page is complete, and that only its own markup is active.
  void expect_sound(const std::string& html) {
    EXPECT_EQ(count(html, "<script"), 1u);
    EXPECT_EQ(count(html, "</script"), 1u);
    EXPECT_EQ(count(html, "<img"), 0u);
    EXPECT_EQ(count(html, "<main>"), 1u);
    EXPECT_TRUE(html.ends_with("</script></body></html>\n"));
    EXPECT_EQ(count(html, "<svg"), count(html, "</svg>"));
    EXPECT_EQ(count(html, "<span"), count(html, "</span>"));
    EXPECT_EQ(count(html, "<pre"), count(html, "</pre>"));
    EXPECT_EQ(count(html, "nan"), 0u) << html.substr(html.find("nan") - 200, 300);
    for (const char* outside : {"http:", "https:", "url(", "@import"}) EXPECT_EQ(count(html, outside), 0u) << outside;
  }
  const ScratchFolder scratch_;
};

TEST(Html, TextOfUnknownOrigin) {
  EXPECT_EQ(html("a <b> & \"c\" 'd'\n\te"), "a &lt;b&gt; &amp; &quot;c&quot; &#39;d&#39;\n\te");
  EXPECT_EQ(html(std::string("\0\x1b\x7f", 3)), "&#x2400;&#x241b;&#x2421;");
  EXPECT_EQ(html("\xff\xc3(\xe2\x82"), "\uFFFD\uFFFD(\uFFFD");
  EXPECT_EQ(html("\xed\xa0\x80\xf4\x90\x80\x80\xc0\xaf"),
            "\uFFFD\uFFFD\uFFFD\uFFFD");  // surrogate, too large, overlong
  EXPECT_EQ(html("\u202Eabc\u2066"), "[U+202E]abc[U+2066]");
  EXPECT_EQ(html("3\u20AC \U0001F600"), "3\u20AC \U0001F600");
  EXPECT_EQ(shortened("3\u20AC", 3), "3...");
  EXPECT_EQ(shortened("abc", 3), "abc");
}

TEST(ChartTest, Ticks) {
  EXPECT_EQ(ticks(0, 1, 4), (std::vector<double>{0, 0.5, 1}));
  EXPECT_EQ(ticks(0, 97, 5), (std::vector<double>{0, 20, 40, 60, 80, 100}));
  for (const auto& [low, high] : {std::pair{-1.0, 1.0}, {0.0, 1e-7}, {3e8, 3.1e8}, {-0.3, 17.0}}) {
    const std::vector<double> t = ticks(low, high, 4);
    EXPECT_LE(t.front(), low + 1e-9 * (high - low));
    EXPECT_GE(t.back(), high - 1e-9 * (high - low));
    EXPECT_TRUE(t.size() >= 3 && t.size() <= 8) << t.size();
  }
}

TEST(ChartTest, LongCurvesKeepTheirExtremes) {
  Curve c;
  for (int i = 0; i < 100000; ++i) c.x.push_back(i), c.y.push_back(i == 54321 ? 1000 : i == 60000 ? NAN : 1);
  const Curve t = thinned(c, 400);
  ASSERT_EQ(t.x.size(), 400u);
  EXPECT_EQ(*std::ranges::max_element(t.high), 1000);
  EXPECT_EQ(*std::ranges::min_element(t.low), 1);
  EXPECT_NEAR(t.x[0], 124.5, 1e-9);
  EXPECT_NEAR(t.y[54321 / 250], (249 + 1000) / 250.0, 1e-9);
  EXPECT_EQ(thinned(c, 100000).x.size(), 100000u);
}

TEST(ChartTest, WhatCannotBeDrawnIsLeftOut) {
  Chart c;
  c.title = "<b>";
  EXPECT_EQ(chart_html(c), "");
  c.curves.push_back({.name = "none", .x = {1, 2}, .y = {NAN, INFINITY}, .low = {}, .high = {}});
  EXPECT_EQ(chart_html(c), "");
  c.curves.push_back({.name = "one", .x = {1, 2, 3}, .y = {5, NAN, 5}, .low = {}, .high = {}});
  const std::string text = chart_html(c);
  EXPECT_EQ(text.find("none"), text.npos);
  EXPECT_EQ(count(text, "<b>"), 0u);
  EXPECT_NE(text.find(R"(data-x="1 1 3" data-y="5,-,5")"), text.npos) << text;
  c.curves = {{.name = "huge", .x = {1, 2}, .y = {-1e308, 1e308}, .low = {}, .high = {}},
              {.name = "tiny", .x = {1, 1}, .y = {1e-300, 1e-300}, .low = {}, .high = {}}};
  EXPECT_EQ(chart_html(c).find("nan"), std::string::npos);
  for (const double value : {5e-324, 1e99, -1e-99}) {
    c.curves = {{.name = "flat", .x = {7}, .y = {value}, .low = {}, .high = {}}};
    EXPECT_NE(chart_html(c).find("<circle"), std::string::npos);
    EXPECT_EQ(chart_html(c).find("nan"), std::string::npos) << value;
  }
}

TEST_F(ReportTest, ARunWithItsChartsAndTiles) {
  const std::string run = make_run("a", 30);
  EXPECT_EQ(write_report({run}, ""), run + "/report.html");
  const std::string html = slurp(run + "/report.html");
  expect_sound(html);
  for (const char* part :
       {"30 of 30", "Accuracy", "test set, 95 % confidence", "Entropy", "Time of a step",
        "Share of the machine&#39;s limit", "Accuracy over time", "mismatch, largest", "lr = 1e-06", "by the verifier"})
    EXPECT_NE(html.find(part), html.npos) << part;
  EXPECT_NE(html.find("data-y=\"50,50,50"), html.npos);  // 50 of 100 GFLOP/s
}

TEST_F(ReportTest, RunsSideBySide) {
  const std::string html = page({make_run("a", 30), make_run("b", 20)});
  expect_sound(html);
  EXPECT_NE(html.find("<h2>Settings that differ</h2>"), html.npos);
  EXPECT_NE(html.find("<tr><th>actor.lr</th><td>1e-06</td><td>2e-06</td></tr>"), html.npos);
  EXPECT_NE(html.find("<tr><th>trainer.total_steps</th><td>30</td><td>20</td></tr>"), html.npos);
  EXPECT_EQ(html.find("by the verifier <b"), html.npos);  // one line a run: its colour is the run
  scratch_.write("x/a/metrics.jsonl", metrics_line(1, 0.5));
  EXPECT_NE(page({scratch_.path("a"), scratch_.path("x/a")}).find(scratch_.path("x/a")), std::string::npos);
}

TEST_F(ReportTest, ADamagedMetricsFile) {
  const std::string run = make_run("a", 5);
  scratch_.write("a/metrics.jsonl",
                 metrics_line(1, 0.25) + "not JSON\n{\"step\": \"x\"}\n[1]\n\n" +
                     R"({"step": 2, "reward/acc": null, "update/entropy": NaN, "new": {"deep": [1]}, "a": "text"})" +
                     "\n" + "{\"step\": 3, \"reward/acc\": 0.5, \"\xff\": 1}\n" + R"({"step": 4, "reward/ac)");
  const std::string html = page({run});
  expect_sound(html);
  EXPECT_NE(html.find("6 lines are damaged or incomplete"), html.npos);
  scratch_.write("a/metrics.jsonl", "");
  EXPECT_NE(page({run}).find("No step is complete yet"), std::string::npos);
  fs::remove_all(run + "/config.resolved.cfg");
  scratch_.write("a/dapo.json", "{");
  scratch_.write("a/metrics.jsonl", metrics_line(1, 0.25));
  expect_sound(page({run}));
}

TEST_F(ReportTest, StepsThatAResumedRunRepeatsReplaceTheOldOnes) {
  MetricsLog log;
  const auto add = [&](int64_t step, Fields fields, std::vector<std::string> alarms = {}) {
    log.add({step, std::move(fields), std::move(alarms)});
  };
  add(1, {{"acc", 1}});
  add(2, {{"acc", 2}}, {"first"});
  add(3, {{"acc", 3}, {"only", 3}});
  add(2, {{"acc", 20}}, {"second"});
  add(2, {{"eval/avg", 0.5}});  // its evaluation, on a line of its own
  add(3, {{"acc", 30}});
  EXPECT_EQ(log.find("acc")->steps, (std::vector<double>{1, 2, 3}));
  EXPECT_EQ(log.find("acc")->values, (std::vector<double>{1, 20, 30}));
  EXPECT_EQ(log.find("eval/avg")->steps, std::vector<double>{2});
  EXPECT_TRUE(log.find("only")->steps.empty());
  ASSERT_EQ(log.alarms().size(), 1u);
  EXPECT_EQ(log.alarms()[0].text, "second");
}

TEST_F(ReportTest, AlarmsOfAnOlderRunAreOneLine) {
  const std::string run = make_run("a", 1);
  std::string lines;
  for (int step = 1; step <= 40; ++step)
    lines += fmt::format("{{\"step\": {}, \"seconds\": 1, \"alarms\": [\"entropy is {} <nats>\", \"other\"]}}\n", step,
                         step);
  scratch_.write("a/metrics.jsonl", lines);
  const std::string html = page({run});
  EXPECT_NE(html.find("<li><b>steps 1 to 40, 40 times:</b> entropy is 1 &lt;nats&gt;</li>"), html.npos);
  EXPECT_EQ(count(html, "<li>"), 2u);
}

TEST_F(ReportTest, AHundredThousandStepsAreAFewMegabytes) {
  const std::string run = make_run("a", 1);
  std::string lines;
  for (int step = 1; step <= 100000; ++step) lines += metrics_line(step, 0.5 + 0.5 * std::sin(step * 0.37));
  scratch_.write("a/metrics.jsonl", lines);
  const std::string html = page({run});
  expect_sound(html);
  EXPECT_LT(html.size(), 2u << 20);
  EXPECT_NE(html.find(">step 100000</text>"), html.npos);
}

TEST_F(ReportTest, FilesOfOthersStay) {
  const std::string run = make_run("a", 2);
  scratch_.write("a/report.html", "mine");
  EXPECT_NE(error_of(kExitUsage, [&] { write_report({run}, ""); }).find("did not write it"), std::string::npos);
  EXPECT_EQ(slurp(run + "/report.html"), "mine");
  fs::remove(run + "/report.html");
  write_report({run}, "");
  write_report({run}, "");  // its own is replaced
  fs::create_directory(scratch_.path("empty"));
  for (const char* name : {"empty", "absent"})
    EXPECT_NE(error_of(kExitUsage, [&] { write_report({scratch_.path(name)}, ""); }).find("has no metrics.jsonl"),
              std::string::npos);
}

// ---- responses

class ResponsesTest : public ReportTest {
 protected:
  void SetUp() override {
    run_ = make_run("a", 3);
    write_byte_tokenizer(run_ + "/model");
  }
  std::string response_line(const std::string& id, const std::string& ids, const std::string& log_probs,
                            bool acc = true, const std::string& text = "text") {
    return fmt::format(
        R"({{"id": "{}", "kept": true, "prompt": "question {}", "response": "{}", "ground_truth": "4", "pred": "5", "acc": {}, )"
        R"("reason": "differs", "score": 1, "shaped": 0.5, "advantage": null, "tokens": 3, "finish_reason": "length", )"
        R"("ids": [{}], "log_probs": [{}]}})"
        "\n",
        id, id, text, acc, ids, log_probs);
  }
  std::string run_;
};

TEST_F(ResponsesTest, TokensAreColouredByLogProb) {
  scratch_.write("a/rollouts/step_3.jsonl", response_line("1", "65, 226, 130, 172, 60", "0, -0.3, -1.5, -0.2, -9"));
  const std::string html = page({run_});
  expect_sound(html);
  // "A", a character of three tokens, "<"
  EXPECT_NE(html.find("<pre>A<span class=\"t3\" title=\"log-prob -2.00, 3 tokens\">\u20AC</span>"
                      "<span class=\"t6\" title=\"log-prob -9.00\">&lt;</span></pre>"),
            html.npos);
  EXPECT_NE(html.find("&#10003; right"), html.npos);
  EXPECT_NE(html.find("answer <b>5</b>, expected <b>4</b>"), html.npos);
  EXPECT_NE(html.find("cut (length)"), html.npos);
}

TEST_F(ResponsesTest, RightAndWrongOnesOfAPromptAreShown) {
  std::string lines;
  for (const char* id : {"all right", "mixed 1", "mixed 2", "mixed 3"})
    for (int i = 0; i < 8; ++i) lines += response_line(id, "65", "0", *id == 'a' || i < 6);
  scratch_.write("a/rollouts/step_1.jsonl", lines);
  const std::string html = page({run_});
  EXPECT_EQ(count(html, "class=\"sample\""), 4u);
  EXPECT_EQ(count(html, "&#10007; wrong"), 2u);
  EXPECT_EQ(count(html, "question mixed 1"), 2u);
  EXPECT_EQ(count(html, "question mixed 2"), 2u);
}

TEST_F(ResponsesTest, HostileResponses) {
  std::string ids;
  for (const char c : std::string("</script><img src=x onerror=alert(1)>"))
    ids += fmt::format("{}{}", ids.empty() ? "" : ", ", int(c));
  const size_t n = count(ids, ",") + 1;
  std::string probs = "-20";
  for (size_t i = 1; i < n; ++i) probs += ", -20";
  scratch_.write(
      "a/rollouts/step_1.jsonl",
      response_line("</main><script>", ids, probs) +                                        // in tokens and fields
          response_line("2", "65", "0, 0", false, "</pre></script><script>x()</script>") +  // no matching log-probs
          response_line("3", "-1, 9999999, 257, 300", "-1, -1, -1, null") +                 // ids without a token
          response_line("4", "65, 255", "-1e30, -Infinity") + "{\"id\": [[[\n" + "\xff\xfe\n" +
          R"({"id": 5, "response": {"x": 1}, "ids": "x", "acc": "yes"})" + "\n" + R"({"id": "6", "respo)");
  const std::string html = page({run_});
  expect_sound(html);
  EXPECT_NE(html.find("lines are no responses"), html.npos);
  fs::remove_all(run_ + "/model");  // without a tokenizer the text is shown
  expect_sound(page({run_}));
  fs::remove(run_ + "/rollouts/step_1.jsonl");
  fs::create_directory(run_ + "/rollouts/step_1.jsonl");
  scratch_.write("a/rollouts/step_99999999999999999999.jsonl", "x");
  expect_sound(page({run_}));
}

TEST_F(ResponsesTest, LongResponsesAreCut) {
  std::string ids = "65", probs = "-3";
  for (int i = 1; i < 20000; ++i) ids += ", 65", probs += ", -3";
  scratch_.write("a/rollouts/step_1.jsonl", response_line("1", ids, probs));
  const std::string html = page({run_});
  expect_sound(html);
  EXPECT_NE(html.find("18500 more tokens"), html.npos);
  EXPECT_LT(html.size(), 1u << 20);
}

}  // namespace
}  // namespace dapo
