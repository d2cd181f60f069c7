#!/usr/bin/env python3
"""Checks the model of a step (bench/scaling_model.py) against the demo on 1, 2 and 4 CPU ranks.

    python3 bench/scaling_check.py [--ranks 1,2,4] [--steps 5] [--rounds 3] [--out runs/scaling] [--into docs/scaling.md]

1. Op times: one rank draws responses of equal lengths and trains on them, in batches of several sizes: the times of a decode step,
   of prefill, of a pack's rows and of an update follow by least squares. With one thread as many such processes run at once as
   there are cores, since ranks also share caches and memory; with all cores' threads one runs alone.
2. The demo's first steps, alternating between the numbers of ranks. Generation batches have 32 prompts, so that the responses that
   a run has written tell which prompts were drawn together.
3. The model, given a run's lengths and the op times, predicts that run's seconds. Ranks beyond the number of cores share them.

The machine must be quiet; the load before and after is printed. What exists in --out is used again, except for the timed runs.
"""
import argparse, concurrent.futures, json, os, pathlib, shutil, statistics, subprocess, sys, time

from scaling import into
from scaling_model import Exchange, Group, errors, least_squares, pairs_of, step

CORES = len(os.sched_getaffinity(0))
PROMPT_TOKENS = 26      # every prompt of the demo
PARAMETERS = 822.4e3
GATHER = 130e-6         # seconds of an all-gather of 1 MB a rank between two ranks: Open MPI 4.1 on two cores
# prompts, responses to each, tokens of each, sequences decoded at once
EQUAL = [(32, 16, 48, 512), (32, 16, 48, 64), (32, 16, 8, 512), (8, 16, 48, 128), (8, 16, 8, 128), (16, 16, 24, 256), (2, 16, 48, 32), (2, 4, 48, 8)]
BATCH = 32
PLAIN = {"eval.every": 0, "trainer.save_every": 0, "algorithm.stop_when_solved": 1}


class Cpu:
    """Costs of a CPU rank (scaling_model): linear in what the ops count."""
    page, run, prefill_tokens, pack_tokens, batch, kv_tokens, backward = 64, 1, 512, 2048, 1024, 10 ** 9, 2 / 3

    def __init__(self, rollout, train, ranks):
        self.of_call, self.of_prefill, self.of_step, self.of_row, self.context = rollout
        self.of_update, self.of_token, self.of_pair = train
        self.slots = min(ranks, CORES)

    def decode(self, sequences):
        return self.of_step + self.of_row * sequences, 0.0

    def prefill(self, tokens, pairs):
        return self.of_prefill * tokens, 0.0

    def pack(self, tokens, pairs, heads):
        return self.of_token * tokens + self.of_pair * pairs, 0.0

    def exchange(self, ranks):
        mb = PARAMETERS / 1e6 * GATHER * (ranks - 1) * max(1, ranks / CORES) / ranks
        return Exchange(1, 4 * mb, 2 * mb, self.of_update / ranks)

    def host(self, responses, tokens, ranks):
        return self.of_call * max(1.0, ranks / self.slots)  # every rank has it


def load():
    return os.getloadavg()[0]


class Check:
    def __init__(self, a):
        self.a, self.out = a, pathlib.Path(a.out).resolve()
        self.programs = pathlib.Path(a.bin).resolve()

    def call(self, name, *args, log, env=None, may_end=()):
        with open(log, "a") as f:
            code = subprocess.run([self.programs / name, *map(str, args)], stdout=f, stderr=f, stdin=subprocess.DEVNULL, env=env).returncode
        if code and code not in may_end:
            sys.exit(f"{name} {' '.join(map(str, args))}: exit {code}; see {log}")

    def cold_start(self):
        if (self.out / "crowd/config.json").exists():
            return
        self.out.mkdir(parents=True, exist_ok=True)
        log = self.out / "cold_start.log"
        self.call("dapo", "chain", self.out, "--overwrite", log=log)
        for config, model, files, out in (("demo_skill", "model", "skill", "skill"), ("demo_crowd", "skill", "crowd", "crowd")):
            self.call("dapo", "sft", f"{self.a.configs}/{config}.cfg", "--overwrite", "--set", f"model.path={self.out / model}",
                      "--set", f"sft.files={self.out / 'data' / files}.jsonl", "--set", f"sft.out={self.out / out}", log=log)

    def train(self, folder, settings):
        """The metrics of a run in `folder`, by step."""
        shutil.rmtree(self.out / folder, ignore_errors=True)
        settings = {"model.path": self.out / "crowd", "data.train_files": self.out / "data/train.jsonl", "model.device": "cpu",
                    "data.val_files": self.out / "data/test.jsonl", "trainer.run_dir": self.out / folder, **PLAIN, **settings}
        env = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")}
        self.call("dapo_train", f"{self.a.configs}/demo.cfg", *[x for k, v in settings.items() for x in ("--set", f"{k}={v}")],
                  log=self.out / f"{folder}.log", env=env, may_end=[4])  # 4: all groups wrong, step after step
        rows = [json.loads(line) for line in open(self.out / folder / "metrics.jsonl")]
        return [r for r in rows if r["step"] > 0]

    def equal(self, threads):
        """Rows for least squares: what an op counted, and the seconds, of rollout and of update."""
        copies = max(1, CORES // threads)
        rollout, train = ([], []), ([], [])
        for prompts, n, tokens, sequences in EQUAL:
            settings = {"trainer.total_steps": 4, "algorithm.filter_groups": "false", "rollout.ignore_eos": "true", "rollout.n": n, "trainer.log_rollouts": "false",
                        "data.train_batch_size": prompts, "data.max_response_length": tokens, "rollout.max_num_seqs": sequences, "model.threads": threads,
                        "actor.ppo_mini_batch_size": prompts // 2, "reward.overlong_buffer": "false", "algorithm.overlong_filtering": "false"}
            with concurrent.futures.ThreadPoolExecutor(copies) as pool:
                runs = list(pool.map(lambda i: self.train(f"equal_{threads}_{i}", settings), range(copies)))
            steps = [r for run in runs for r in run[1:]]  # the first warms up
            waves = prompts * n // sequences
            drawn, contexts = prompts * n * (tokens - 1), prompts * n * sum(PROMPT_TOKENS + k for k in range(1, tokens))
            rollout[0].append((1, prompts * PROMPT_TOKENS, waves * (tokens - 1), drawn, contexts))
            rollout[1].append(statistics.median(r["rollout/seconds"] for r in steps))
            train[0].append((2, statistics.median(r["update/rows"] for r in steps), prompts * pairs_of(PROMPT_TOKENS, [tokens] * n)))
            train[1].append(statistics.median(r["update/seconds"] for r in steps))
            print(f"  {threads} threads, {copies} at once: {prompts} x {n} responses of {tokens} tokens, {sequences} at once: rollout {rollout[1][-1]:.3f} s, update {train[1][-1]:.3f} s", flush=True)
        return rollout, train

    def lengths(self, folder, row):
        """Generation batches and trained groups of a step, from the responses that the run has written."""
        groups, last = [], None
        for line in open(self.out / folder / f"rollouts/step_{row['step']}.jsonl"):
            r = json.loads(line)
            key = (r["id"], r["drawn_at"], r["kept"], r.get("advantage") is not None)
            if key != last or len(groups[-1][1].lengths) == 16:
                groups.append((key, Group(len(r["prompt_ids"]), [])))
            groups[-1][1].lengths.append(r["tokens"])
            last = key
        drawn = [g for key, g in groups if key[1] == row["step"]]
        trained = [g for key, g in groups if key[3] and key[2]]
        if len(drawn) != row["groups/generated"] or len(trained) != row["groups/trained"]:
            sys.exit(f"{folder}, step {row['step']}: {len(drawn)} groups drawn and {len(trained)} trained on are written, "
                     f"metrics.jsonl has {row['groups/generated']} and {row['groups/trained']}")
        count = row["groups/generation_batches"]
        return [drawn[i::count] for i in range(count)], trained


def solve(samples):
    """Least squares with coefficients of at least 0: the most negative one is left out, until there is none."""
    rows, seconds = samples
    used = list(range(len(rows[0])))
    while True:
        c = least_squares([[r[i] for i in used] for r in rows], seconds)
        if min(c) >= 0:
            break
        used.pop(c.index(min(c)))
    all_ = [0.0] * len(rows[0])
    for i, v in zip(used, c):
        all_[i] = v
    return all_, errors(rows, seconds, all_)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--ranks", default=[1, 2, 4], type=lambda s: [int(x) for x in s.split(",")])
    ap.add_argument("--steps", default=5, type=int)
    ap.add_argument("--rounds", default=3, type=int)
    ap.add_argument("--out", default="runs/scaling")
    ap.add_argument("--bin", default=".", help="folder of dapo and dapo_train")
    ap.add_argument("--configs", default="configs")
    ap.add_argument("--into", help="a page: its section <!-- check --> is replaced")
    a = ap.parse_args()
    check, before = Check(a), load()
    check.cold_start()
    threads = lambda ranks: max(1, CORES // ranks)
    costs, fits = {}, []
    for t in sorted({threads(r) for r in a.ranks}):
        (rollout, e), (train, f) = map(solve, check.equal(t))
        costs[t] = rollout, train
        fits.append(f"{t} thread{'s' if t > 1 else ''}: a decode step {rollout[2] * 1e6:.0f} us and {rollout[3] * 1e6:.2f} a sequence, a token of a pack "
                    f"{train[1] * 1e6:.2f} us, an update {train[0] * 1e3:.1f} ms; mean error {100 * statistics.mean(map(abs, e)):.0f} % (rollout), "
                    f"{100 * statistics.mean(map(abs, f)):.0f} % (update)")
        print(fits[-1], flush=True)
    seen = {r: [] for r in a.ranks}
    for _ in range(a.rounds):
        for ranks in a.ranks:
            folder = f"ranks_{ranks}"
            rows = check.train(folder, {"trainer.total_steps": a.steps, "parallel.dp": ranks, "data.gen_batch_size": BATCH})
            cpu = Cpu(*costs[threads(ranks)], ranks)
            measured, predicted = [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]
            for row in rows:
                batches, trained = check.lengths(folder, row)
                s = step(batches, trained, row["update/count"], ranks, cpu)
                part = [s[t] for t in ("full batches", "thin batches", "waiting in rollout", "prefill", "host")]
                for k, v in enumerate((row["seconds"], row["rollout/seconds"], row["update/seconds"])):
                    measured[k] += v
                for k, v in enumerate((sum(s.values()), sum(part), sum(s.values()) - sum(part))):
                    predicted[k] += v
            seen[ranks].append((measured, predicted))
            print(f"  {ranks} ranks: measured {measured[0]:.2f} s, predicted {predicted[0]:.2f} s, load {load():.1f}", flush=True)
    lines = ["| ranks | threads of each | measured, s | predicted, s | error | rollout, measured / predicted | update, measured / predicted |", "|---:|---:|---:|---:|---:|---:|---:|"]
    for ranks in a.ranks:
        m, p = ([statistics.median(run[side][k] for run in seen[ranks]) for k in range(3)] for side in (0, 1))
        spread = f"{min(x[0][0] for x in seen[ranks]):.2f} to {max(x[0][0] for x in seen[ranks]):.2f}"
        lines.append(f"| {ranks} | {threads(ranks)} | {m[0]:.2f} ({spread}) | {p[0]:.2f} | {100 * (p[0] / m[0] - 1):+.0f} % | {m[1]:.2f} / {p[1]:.2f} | {m[2]:.2f} / {p[2]:.2f} |")
    after = load()
    quiet = "" if before < 0.3 else " Other programs ran: these figures say little; run it again on a quiet machine."
    text = (f"{time.strftime('%Y-%m-%d')}, {CORES} cores, the demo's first {a.steps} steps, medians of {a.rounds} alternating rounds (in brackets: range). "
            f"Load average before the first run {before:.1f}, after the last {after:.1f}.{quiet}\n\n" + "\n".join(lines) + "\n\n" + "\n".join(f"- {x}" for x in fits) + "\n")
    print("\n" + text)
    if a.into:
        into(a.into, "check", text)


if __name__ == "__main__":
    main()
