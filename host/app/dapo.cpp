// dapo: tools for a model as subcommands. This file is the command line; cmd_<name>.cpp implements each of them.
#include <CLI/CLI.hpp>

#include "core/choices.h"
#include "core/files.h"
#include "host/app/commands.h"
#include "host/app/report_error.h"
#include "host/verify/verify.h"

namespace dapo {
namespace {

void add_device(CLI::App& app, DeviceOptions& on) {
  app.add_option("--device", on.device, choice_list(choices(DeviceChoice{}), " | "))->capture_default_str();
  app.add_option("--dtype", on.dtype, choice_list(choices(DTypeChoice{}), " | "))->capture_default_str();
  app.add_option("--threads", on.threads, "CPU threads, 0: all cores")->capture_default_str();
  app.add_option("--seed", on.seed, "random seed of every draw")->capture_default_str();
}

void add_out(CLI::App& app, std::string& out) {
  app.add_option("-o,--out", out, "output file, which appears when it is complete; default: standard output");
}

void add_settings(CLI::App& app, std::vector<std::string>& settings) {
  // a callback: an option bound to the vector would clear what the flags below have added
  app.add_option_function<std::vector<std::string>>(
         "--set",
         [&settings](const std::vector<std::string>& v) { settings.insert(settings.end(), v.begin(), v.end()); },
         "section.field=value, overrides the config; may be repeated")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  for (const auto& [flag, key] : {std::pair{"--device", "model.device"},
                                  {"--dtype", "model.dtype"},
                                  {"--threads", "model.threads"},
                                  {"--seed", "trainer.seed"}})
    app.add_option_function<std::string>(
        flag, [&settings, key = std::string(key)](const std::string& v) { settings.push_back(key + "=" + v); }, key);
}

CLI::App& add_sft(CLI::App& app, SftOptions& o) {
  CLI::App& c = *app.add_subcommand("sft", "fine-tune on prompts with responses");
  c.add_option("config", o.config, "a .cfg file with [model], [data] and [sft]")->required();
  add_settings(c, o.settings);
  c.add_flag("--check", o.check, "load everything, show the first row as the model sees it, train nothing");
  c.add_flag("--overwrite", o.overwrite, "replace a model that an earlier run of this program left in sft.out");
  c.footer("Example: dapo sft configs/demo_skill.cfg --set sft.steps=100");
  return c;
}

CLI::App& add_eval(CLI::App& app, EvalOptions& o) {
  CLI::App& c = *app.add_subcommand("eval", "avg@n, pass@k and maj@k on sets of problems; two models compared");
  c.add_option("given", o.given,
               "a .cfg file, a model folder, or both; two model folders are compared on the same problems");
  c.add_option("--model", o.model, "a Hugging Face folder");
  c.add_option("--data", o.data,
               "sets of problems: aime-2024, aime-2025, amc23, gsm8k, math-500 (data/download.sh), files, folders, "
               "patterns; each is reported apart");
  const auto setting = [&](const char* flag, const char* key) {
    c.add_option_function<std::string>(
        flag, [&o, key](const std::string& v) { o.settings.push_back(std::string(key) + "=" + v); }, key);
  };
  setting("-n", "eval.n");
  setting("--verifier", "reward.verifier");
  setting("--max-new-tokens", "data.max_response_length");
  setting("--temperature", "eval.temperature");
  setting("--top-p", "eval.top_p");
  setting("--max-problems", "eval.max_problems");
  setting("--template", "data.prompt_template");
  setting("--suffix", "data.prompt_suffix");
  add_settings(c, o.settings);
  c.add_option("-o,--out", o.out, "JSONL of every response");
  c.footer(
      "Example: dapo eval --model qwen2.5-0.5b --data gsm8k_test.jsonl --verifier gsm8k -n 4 --max-problems 100\n"
      "         dapo eval models/qwen2.5-0.5b runs/gsm8k/model --data gsm8k math-500 --verifier math -n 4");
  return c;
}

CLI::App& add_generate(CLI::App& app, GenerateOptions& o) {
  CLI::App& c = *app.add_subcommand("generate", "draw responses to prompts");
  c.add_option("--model", o.model, "a Hugging Face folder")->required();
  c.add_option_function<std::string>(
      "--prompt", [&](const std::string& v) { o.prompt = v, o.has_prompt = true; }, "text");
  c.add_option("--prompts", o.prompts, "JSONL of {\"prompt\"}, {\"messages\"} or {\"ids\"}; - for standard input");
  c.add_option("-n", o.n, "responses a prompt")->capture_default_str();
  c.add_option("--max-new-tokens", o.max_new_tokens, "most tokens per response")->capture_default_str();
  c.add_option("--temperature", o.temperature, "0: the most probable token")->capture_default_str();
  c.add_option("--top-p", o.top_p, "1: off")->capture_default_str();
  c.add_option("--top-k", o.top_k, "0: off")->capture_default_str();
  c.add_option("--min-p", o.min_p, "0: off")->capture_default_str();
  c.add_option("--batch", o.batch, "sequences decoded at once")->capture_default_str();
  c.add_option("--template", o.prompt_template, choice_list(choices(PromptStyle{}), " | "))->capture_default_str();
  c.add_option("--format", o.format, "plain text template with {question}, for base models");
  c.add_option("--system", o.system, "system message instead of the template's");
  c.add_option("--suffix", o.suffix, "appended to each prompt");
  add_out(c, o.out);
  add_device(c, o.on);
  c.footer("Example: dapo generate --model qwen2.5-0.5b --prompt \"What is 12 * 7?\" --temperature 0");
  return c;
}

CLI::App& add_score(CLI::App& app, ScoreOptions& o) {
  CLI::App& c = *app.add_subcommand("score", "log-prob and entropy of every token");
  c.add_option("--model", o.model, "a Hugging Face folder")->required();
  c.add_option(
       "file", o.file,
       "JSONL of {\"prompt_ids\", \"ids\"} (as generate, eval -o and rollouts/ write it), {\"ids\", \"prompt_len\"}, "
       "{\"prompt\", \"response\"} or {\"text\"}; - for standard input")
      ->capture_default_str();
  c.add_option("--temperature", o.temperature, "divides the logits")->capture_default_str();
  c.add_option("--pack-tokens", o.pack_tokens, "tokens per pass")->capture_default_str();
  add_out(c, o.out);
  add_device(c, o.on);
  c.footer("Example: echo '{\"text\": \"Paris is the capital of France.\"}' | dapo score --model qwen2.5-0.5b -");
  return c;
}

CLI::App& add_tokenize(CLI::App& app, TokenizeOptions& o) {
  CLI::App& c = *app.add_subcommand("tokenize", "text to ids, ids to text, conversations to text and ids");
  c.add_option("--model", o.model, "a Hugging Face folder, or a tokenizer.json")->required();
  c.add_option("file", o.file, "JSONL of {\"text\"}, {\"ids\"} or {\"messages\"}; - for standard input")
      ->capture_default_str();
  CLI::Option* decode = c.add_flag("--decode", o.decode, "{\"ids\"} to {\"text\"}");
  CLI::Option* chat = c.add_flag("--chat", o.chat,
                                 "{\"messages\"[, \"tools\"]} to {\"text\", \"ids\"}; a final assistant message is "
                                 "continued (unless \"add_generation_prompt\" or \"continue_final_message\" is set)")
                          ->excludes(decode);
  c.add_flag("--special", o.special, "add special tokens; with --decode, show them")->excludes(chat);
  add_out(c, o.out);
  c.footer("Example: echo '{\"text\": \"2 + 2 =\"}' | dapo tokenize --model qwen2.5-0.5b -");
  return c;
}

CLI::App& add_verify(CLI::App& app, VerifyOptions& o) {
  CLI::App& c = *app.add_subcommand("verify", "judge responses against ground truth");
  c.add_option("--verifier", o.verifier, choice_list(kVerifierNames, " | "))->capture_default_str();
  c.add_option("file", o.file, "JSONL of {\"solution\" or \"response\", \"ground_truth\"}; - for standard input")
      ->capture_default_str();
  c.add_flag("--strict-box", o.strict_box, "math_dapo: compare the last \\boxed{} verbatim");
  c.add_flag("--flexible", o.flexible, "gsm8k: take the last number");
  c.add_option("--pattern", o.pattern, "format: \"<think>*</think>*\", * for any text");
  c.add_option("--command", o.command, "command: a program with its arguments (docs/verifiers.md)");
  c.add_option("--timeout", o.timeout, "command: seconds for one answer")->capture_default_str();
  c.add_option("--workers", o.workers, "threads, and processes of the command")->capture_default_str();
  add_out(c, o.out);
  c.footer(
      "Example: echo '{\"solution\": \"Answer: 42\", \"ground_truth\": \"42\"}' | dapo verify --verifier math_dapo -");
  return c;
}

CLI::App& add_report(CLI::App& app, ReportOptions& o) {
  CLI::App& c = *app.add_subcommand("report", "a page about a run, or several side by side: charts, alarms, responses");
  c.add_option("run", o.runs, "the folder of a run (trainer.run_dir); may be repeated")->required();
  c.add_option("-o,--out", o.out,
               "an .html file; default: RUN/report.html, or report.html in this folder for several runs");
  c.footer("Example: dapo report runs/demo/dapo");
  return c;
}

CLI::App& add_watch(CLI::App& app, WatchOptions& o) {
  CLI::App& c = *app.add_subcommand("watch", "follow a run from another terminal: a line a step, with the time left");
  c.add_option("run", o.run, "the folder of a run (trainer.run_dir)")->required();
  c.add_option("-n,--last", o.last, "how many of the steps already done to show; 0: all")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  c.footer("Example: dapo watch runs/demo/dapo");
  return c;
}

CLI::App& add_doctor(CLI::App& app, DoctorOptions& o) {
  CLI::App& c = *app.add_subcommand("doctor", "what is wrong with a config, a model, a dataset or this machine");
  c.add_option("file", o.inputs,
               "configs (.cfg), model folders, and files of rows, which are counted in the tokens of the model beside "
               "them; this machine is looked at with a config, or if nothing is given");
  const auto setting = [&](const char* flag, const char* key) {
    c.add_option_function<std::string>(
        flag, [&o, key](const std::string& v) { o.settings.push_back(std::string(key) + "=" + v); }, key);
  };
  setting("--verifier", "reward.verifier");
  setting("--template", "data.prompt_template");
  setting("--max-prompt", "data.max_prompt_length");
  add_settings(c, o.settings);
  c.footer(
      "Findings are ok, note, WARNING (a run starts, and is probably not what was meant) or ERROR (it would not start, "
      "or could not learn). Exit codes: 0 no error, 2 errors.\n"
      "Example: dapo doctor models/qwen2.5-0.5b datasets/gsm8k-train.parquet --verifier boxed --max-prompt 512");
  return c;
}

CLI::App& add_chain(CLI::App& app, ChainOptions& o) {
  CLI::App& c = *app.add_subcommand("chain", "write the demo's data and an untrained model");
  c.add_option("folder", o.folder, "where to")->required();
  c.add_flag("--overwrite", o.overwrite, "replace existing files");
  c.add_option("--seed", o.seed, "random seed of the problems")->capture_default_str();
  c.footer("Example: dapo chain runs/demo");
  return c;
}

CLI::App& add_countdown(CLI::App& app, CountdownOptions& o) {
  CLI::App& c =
      *app.add_subcommand("countdown", "write problems of the countdown task: reach a target with given numbers");
  c.add_option("file", o.file, "a .jsonl file")->required();
  c.add_flag("--overwrite", o.overwrite, "replace an existing file");
  c.add_option("--rows", o.rows, "how many")->capture_default_str();
  c.add_option("--seed", o.seed, "random seed of the problems")->capture_default_str();
  c.footer("Example: dapo countdown datasets/countdown.jsonl --rows 2000 --seed 7");
  return c;
}

int run(int argc, char** argv) {
  CLI::App app(
      "Tools for a Qwen2.5-type model: fine-tune, evaluate, generate, score, tokenize, verify, diagnose; look at runs.",
      "dapo");
  app.require_subcommand(0, 1);  // none: reported below, as CLI11 checks for it before unknown words
  app.footer(
      "dapo COMMAND --help explains a command, with an example. Exit codes: 0 done, 2 bad usage or input, 3 out of "
      "resources "
      "(or "
      "output that could not be written), 4 numbers went bad, 130 interrupted.");
  SftOptions sft;
  EvalOptions eval;
  GenerateOptions generate;
  ScoreOptions score;
  TokenizeOptions tokenize;
  VerifyOptions verify;
  ReportOptions report;
  WatchOptions watch;
  DoctorOptions doctor;
  ChainOptions chain;
  CountdownOptions countdown;
  const std::vector<std::pair<CLI::App*, std::function<int()>>> commands = {
      {&add_sft(app, sft), [&] { return run_sft_command(sft); }},
      {&add_eval(app, eval), [&] { return run_eval_command(eval); }},
      {&add_generate(app, generate), [&] { return run_generate_command(generate); }},
      {&add_score(app, score), [&] { return run_score_command(score); }},
      {&add_tokenize(app, tokenize), [&] { return run_tokenize_command(tokenize); }},
      {&add_verify(app, verify), [&] { return run_verify_command(verify); }},
      {&add_report(app, report), [&] { return run_report_command(report); }},
      {&add_watch(app, watch), [&] { return run_watch_command(watch); }},
      {&add_doctor(app, doctor), [&] { return run_doctor_command(doctor); }},
      {&add_chain(app, chain), [&] { return run_chain_command(chain); }},
      {&add_countdown(app, countdown), [&] { return run_countdown_command(countdown); }},
  };
  for (CLI::App* command : app.get_subcommands({}))  // the shell leaves "~" alone in --model=~/x and in quotes
    for (CLI::Option* option : command->get_options())
      for (const char* path : {"--model", "--data", "--prompts", "--out", "config", "given", "file", "folder", "run"})
        if (option->check_name(path)) option->transform(expand_home, "");
  return run_program("dapo", app, argc, argv, [&] {
    for (const auto& [command, run] : commands)
      if (command->parsed()) return run();
    fail_input(
        "no command; give one of sft, eval, generate, score, tokenize, verify, report, watch, doctor, chain, "
        "countdown");
  });
}

}  // namespace
}  // namespace dapo

int main(int argc, char** argv) {
  return dapo::run(argc, argv);
}
