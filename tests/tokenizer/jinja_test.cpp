// The template language: against transformers' own rendering (tests/goldens/chat, made by make.py there), errors, and
// malicious templates.
#include "tokenizer/jinja.h"

#include <chrono>
#include <thread>

#include "tests/growth.h"
#include "tests/tokenizer/support.h"
#include "tokenizer/chat.h"

namespace dapo {
namespace {

using jinja::Dict;
using jinja::Template;

const std::string kGoldens = "tests/goldens/chat/";

std::string render(const std::string& source, const std::string& variables = "{}") {
  const jinja::Value given = jinja::from_json(variables, "variables");
  return Template(source, "t.jinja").render(given.dict());
}

std::string refusal(const std::string& source, const std::string& variables = "{}") {
  return error_of(kExitUsage, [&] { render(source, variables); });
}

#define EXPECT_SAYS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST(Jinja, ExpressionsAndStatementsAsInTransformers) {
  const auto rows = json_lines(kGoldens + "vectors.jsonl");
  ASSERT_GT(rows.size(), 600u) << "run from the project's root";
  const std::string line = slurp(kGoldens + "vectors.jsonl");
  // The variables verbatim, with an integer that a double cannot represent.
  const std::string first = line.substr(0, line.find('\n'));
  const std::string variables = first.substr(first.find(": ") + 2, first.size() - first.find(": ") - 3);
  int texts = 0;
  for (const Json& row : rows) {
    if (!row.contains("template")) continue;
    const std::string source = row["template"];
    if (row.contains("text")) {
      ++texts;
      EXPECT_EQ(render(source, variables), row["text"].get<std::string>()) << source;
    } else {
      EXPECT_SAYS(refusal(source, variables), "t.jinja:") << source;
    }
  }
  EXPECT_GT(texts, 550);
}

TEST(Jinja, WholeTemplatesAsInTransformers) {
  int equal = 0, refused = 0;
  for (const Json& row : json_lines(kGoldens + "vectors.jsonl")) {
    if (!row.contains("file")) continue;
    const std::string file = row["file"];
    Dict special;
    special.set("bos_token", "<s>");
    special.set("eos_token", "</s>");
    const ChatTemplate chat = ChatTemplate::parse(slurp(kGoldens + "templates/" + file), file, special);
    const std::string messages = row["messages"].dump();
    const ChatExtras tools{row["tools"].is_null() ? "" : row["tools"].dump(), ""};
    const ChatEnd end = row["prompt"].get<bool>() ? ChatEnd::prompt : ChatEnd::closed;
    // apply_chat_template gives reasoning under two names; the templates here read one, so the rows hold.
    if (row.contains("text")) {
      EXPECT_EQ(chat.render_json(messages, tools, end), row["text"].get<std::string>()) << file << ' ' << messages;
      ++equal;
    } else {
      EXPECT_SAYS(error_of(kExitUsage, [&] { chat.render_json(messages, tools, end); }), file);
      ++refused;
    }
  }
  EXPECT_GE(equal, 150);
  EXPECT_GE(refused, 30);
}

TEST(Jinja, ErrorsNameTemplateAndLine) {
  EXPECT_SAYS(refusal("a\nb{{ x.y }}"), "t.jinja:2: 'x' is undefined");
  EXPECT_SAYS(refusal("\n\n{% if %}"), "t.jinja:3:");
  EXPECT_SAYS(refusal("{% for x in [1] %}\n{{ x }}"), "endfor");
  EXPECT_SAYS(refusal("{{ raise_exception('No ' ~ 'system') }}"), "No system");
  EXPECT_SAYS(refusal("{{ 1 | nothing }}"), "'nothing'");
  EXPECT_SAYS(refusal("{{ 1 is nothing }}"), "'nothing'");
  EXPECT_SAYS(refusal("a\n{{ [1, 2] | random }}"), "t.jinja:2: the filter 'random' is not supported");
  for (const char* name : {"pprint", "striptags", "urlize", "wordwrap"})
    EXPECT_SAYS(refusal(fmt::format("\n{{{{ 'x' | {} }}}}", name)), fmt::format("t.jinja:2: the filter '{}' of", name));
  EXPECT_SAYS(refusal("{% nothing %}"), "'nothing'");
  EXPECT_SAYS(refusal("{% include 'x' %}"), "'include'");
  EXPECT_SAYS(refusal("{{ 'x' }"), "t.jinja:1");
  EXPECT_SAYS(refusal("{# x"), "comment");
  EXPECT_SAYS(refusal("{% raw %}"), "endraw");
  EXPECT_SAYS(refusal("{{ 'x }}"), "not closed");
  EXPECT_SAYS(refusal("{% set x = [] %}{{ x.append(1) }}"), "append");
  EXPECT_SAYS(refusal("{% set x = 1 %}{% set x.y = 2 %}"), "namespace");
  EXPECT_SAYS(refusal("{{ 9223372036854775807 + 1 }}"), "64 bits");
  EXPECT_SAYS(refusal("{{ x + 1 }}", R"({"x": 18446744073709551616})"), "64 bits");
  EXPECT_SAYS(refusal("{{ '\\N{BULLET}' }}"), "\\N");
  EXPECT_SAYS(error_of(kExitUsage, [] { jinja::from_json("[1,", "the tools"); }), "the tools");
}

TEST(Jinja, DatesAreToday) {
  const std::time_t now = jinja::template_time();  // one date for the whole process
  EXPECT_LT(std::abs(std::difftime(now, std::time(nullptr))), 24 * 3600);
  std::tm local{};
  localtime_r(&now, &local);
  const std::string first = render("{{ strftime_now('%H:%M:%S') }}");
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));
  EXPECT_EQ(render("{{ strftime_now('%H:%M:%S') }}"), first);
  EXPECT_EQ(render("{{ strftime_now('%Y-%m') }}"), fmt::format("{:04}-{:02}", local.tm_year + 1900, local.tm_mon + 1));
}

/// Each ends with an error, or with little output, in bounded time and memory.
TEST(Jinja, HostileTemplatesEnd) {
  const auto repeated = [](const std::string& text, int n) {
    std::string out;
    for (int i = 0; i < n; ++i) out += text;
    return out;
  };
  const std::string loop = "{% for i in range(100000) %}", end = "{% endfor %}", ns = "{% set n = namespace(v='x') %}";
  const std::vector<std::string> hostile = {
      loop + loop + loop + end + end + end,
      loop + loop + "x" + end + end,
      ns + loop + "{% set n.v = n.v + n.v %}" + end,
      ns + loop + "{% set n.v = n.v ~ n.v %}" + end,
      ns + loop + "{% set n.v = [n.v] %}" + end + "{{ n.v }}",
      ns + loop + "{% set n.v = (n.v,) %}" + end + "{{ n.v }}",
      ns + loop + "{% set n.v = {'a': n.v} %}" + end + "{{ n.v }}",
      ns + loop + "{% set n.v = dict(a=n.v) %}" + end + "{{ n.v }}",
      ns + loop + "{% set n.v = [n.v]|map('string')|list %}" + end,
      ns + "{% for i in range(90) %}{% set n.v = [n.v, n.v] %}" + end + "{{ n.v }}",
      ns + "{% for i in range(90) %}{% set n.v = (n.v, n.v) %}" + end + "{{ {n.v: 1} }}{{ n.v == n.v }}",
      ns + loop + "{% set n.v = namespace(v=n.v) %}" + end,
      ns + "{% set n.v = n %}{{ n.v.v.v.v is defined }}",
      ns + "{% for a in range(3) %}{% macro m() %}{{ n }}{% endmacro %}{% set n.v = m %}" + end + "{{ n.v() }}",
      loop + "{% macro m() %}" + "{% endmacro %}" + end,
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% macro m(x) %}{{ caller() }}{% endmacro %}{% macro k() %}{% call m(1) %}{{ k() }}{% endcall %}{% endmacro %}"
      "{{ k() }}",
      "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
      "{{ 'x' * 10000000000 }}",
      "{{ 'x' * 9223372036854775807 }}",
      "{{ [1] * 10000000000 }}",
      "{{ ('x' * 1000000) * 1000000 }}",
      "{{ '%1000000000s' % 'x' }}",
      "{{ '%.1000000000f' % 1 }}",
      "{{ '{:1000000000}'.format(1) }}",
      "{{ '{:{}}'.format(1, 1000000000) }}",
      "{{ '{:.1000000000f}'.format(1.0) }}",
      "{{ '" + repeated("{:1000000}", 300) + "'.format(1) }}",
      "{{ '" + repeated("{0:", 1000) + "'.format(1) }}",
      "{{ 'a'.center(10000000000) }}{{ 'a'.ljust(10000000000) }}",
      "{{ 'a'.zfill(10000000000) }}",
      "{{ 'a'|center(10000000000) }}",
      "{{ 'a'|indent(10000000000) }}",
      "{{ ('a\\n' * 100000)|indent(60000) }}",
      "{{ ('a' * 10000000).replace('a', 'b' * 10000000) }}",
      "{{ ('a' * 10000000).replace('', 'b' * 10000000) }}",
      "{{ ('a' * 10000000)|replace('a', 'b' * 10000000) }}",
      "{{ ('a,' * 10000000).split(',')|length }}",
      "{{ ('a' * 100000000)|list|length }}",
      "{{ ('x' * 1000000).join(range(100000)|map('string')) }}",
      "{{ range(100000)|join('x' * 1000000) }}",
      "{{ range(100000)|batch(1000000, 'x')|list|length }}",
      "{{ range(100001)|length }}",
      "{{ range(-9223372036854775807, 9223372036854775807)|length }}",
      "{{ [[[[1]]]]|tojson(indent=100000000) }}",
      "{{ [[[[1]]]]|tojson(indent='x' * 100000000) }}",
      "{{ 2 ** 1000000000 }}{{ 9 ** 9 ** 9 }}",
      "{{ (-9223372036854775807 - 1) // -1 }}",
      "{{ (-9223372036854775807 - 1) % -1 }}{{ (-9223372036854775807 - 1)|abs }}",
      "{{ 1e308 * 10 }}{{ 1e400|int }}",
      loop + "{{ 'b' in ('a' * 1000000) }}" + end,
      "{% set a = 'a' * 1000000 %}" + loop + "{{ 'b' in a }}{{ a.find('b') }}{{ a.count('b') }}{{ a|length }}" + end,
      "{% set a = range(100000)|list %}" + loop + "{{ a.index(99999) }}" + end,
      "{% set a = range(100000)|list %}" + loop + "{{ a == a }}" + end,
      "{{ " + repeated("(", 100000) + "1" + repeated(")", 100000) + " }}",
      "{{ " + repeated("[", 100000) + repeated("]", 100000) + " }}",
      "{{ " + repeated("{1:", 100000) + "1" + repeated("}", 100000) + " }}",
      "{{ " + repeated("not ", 100000) + "1 }}",
      "{{ " + repeated("-", 100000) + "1 }}",
      "{{ 1" + repeated(" + 1", 100000) + " }}",
      "{{ 1" + repeated(" ~ 1", 100000) + " }}",
      "{{ 1" + repeated(" < 1", 100000) + " }}",
      "{{ 1" + repeated(" and 1", 100000) + " }}",
      "{{ 1" + repeated("|string", 100000) + " }}",
      "{{ 1" + repeated(" is odd", 100000) + " }}",
      "{{ x" + repeated(".x", 100000) + " }}",
      "{{ x" + repeated("[0]", 100000) + " }}",
      "{{ x" + repeated("()", 100000) + " }}",
      "{{ 1" + repeated(" if 1 else 1", 100000) + " }}",
      "{{ 1" + repeated(" if 1", 100000) + " }}",
      repeated("{% if 1 %}", 100000),
      "{% if 0 %}" + repeated("{% elif 0 %}", 100000) + "{% endif %}",
      repeated("{% for x in y %}", 100000),
      repeated("{% macro m() %}", 100000),
      repeated("{{ 1 }}", 500000),
      "{% set " + repeated("(", 100000) + "x %}",
      "{{ '" + repeated("\\", 99999) + "' }}",
      "{{ cycler(1).next }}{% set f = cycler(1, 2).next %}{{ f() }}{{ f() }}",
      "{% for x in [1] %}{% set f = loop.cycle %}{{ f(1) }}{% endfor %}{{ loop }}",
  };
  for (const std::string& source : hostile) {
    const double seconds = thread_seconds([&] {
      try {
        render(source);
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), kExitUsage) << e.what();
        EXPECT_SAYS(std::string(e.what()), "t.jinja:") << source.substr(0, 200);
      }
    });
    EXPECT_LT(seconds, 600) << source.substr(0, 200);  // about two at most, without sanitizers
  }
}

TEST(Jinja, OneTemplateServesManyThreads) {
  const Template t("{% macro m(x) %}<{{ x }}>{% endmacro %}{% for x in l %}{{ m(x) }}{% endfor %}", "t");
  Dict variables;
  variables.set("l", jinja::from_json("[1, 2, 3]", "l"));
  std::vector<std::thread> threads;
  std::atomic<int> equal{0};
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (int k = 0; k < 200; ++k) equal += t.render(variables) == "<1><2><3>";
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(equal, 800);
}

/// Results of Python's json.dumps(json.loads(x), ensure_ascii=False).
TEST(Jinja, ToJsonIsPythons) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"({"a":[1,2.0,-3e5,1e16,1e-5,0.0001,true,null],"b":{}})",
       R"({"a": [1, 2.0, -300000.0, 1e+16, 1e-05, 0.0001, true, null], "b": {}})"},
      {R"(["\u00e9\n\/\"\\\u0001", "北京"])", R"(["é\n/\"\\\u0001", "北京"])"},
      {"[]", "[]"},
      {"18446744073709551615", "18446744073709551615"},
      {"123456789012345678901234567890", "123456789012345678901234567890"},
      {"0.1", "0.1"},
      {R"({"a":1,"b":2,"a":3})", R"({"a": 3, "b": 2})"},
      {"123456789012345680.0", "1.2345678901234568e+17"}};
  for (const auto& [in, out] : cases) EXPECT_EQ(render("{{ x | tojson }}", "{\"x\":" + in + "}"), out);
}

}  // namespace
}  // namespace dapo
