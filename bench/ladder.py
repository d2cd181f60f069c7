#!/usr/bin/env python3
"""The ladder of the paper's Table 1 (arXiv 2503.14476) on the chain task: naive GRPO, then one technique more in each row.

    python3 bench/ladder.py [--out runs/ladder] [--seeds 1,2,3] [--steps 40] [--jobs 1] [--device auto] [--bin .]

Writes OUT/ladder.md (a table: test accuracy, mean and standard deviation over the seeds) and OUT/ladder.svg (the curves).
Called again, it goes on where it stopped: finished runs are read, an unfinished one resumes from its checkpoint.

The demo's setting does not separate the rows. Here what has to be found is rarer, the limit tighter and a step longer: of the
crowd that the model imitates at first, 2 % of the teachers are right and short (10 % in the demo: four of five of their
rows are left out); a response has 40 tokens instead of 48, so that the wordy teachers, who are right as well, do not finish
a chain of more than four operations; and a step makes 16 updates, as in the paper, of 2 prompts each. Everything else is
the demo's: 32 prompts x 16 responses a step, learning rate 3e-4. Entropy and KL terms are off in every row. No step ends its
rollout early (algorithm.stop_when_solved = 1), so that the last row is the paper's dynamic sampling. docs/ladder.md has the
results, and those of other settings.
"""
import argparse, concurrent.futures, json, math, pathlib, statistics, subprocess, sys

from curves import panel, picture

SAME = {"algorithm.stop_when_solved": 1, "data.max_response_length": 40, "reward.overlong_buffer_len": 8, "eval.every": 5,
        "actor.ppo_mini_batch_size": 2, "rollout.kv_memory_gb": 0.25}
GRPO = {"actor.clip_ratio_high": 0.2, "actor.loss_agg_mode": "seq-mean-token-mean", "algorithm.filter_groups": "false",
        "reward.overlong_buffer": "false", "algorithm.overlong_filtering": "false"}
# Each row: name, and what it changes in the row before. The soft punishment replaces the filter: a masked response would
# not be punished.
LADDER = [("naive GRPO", {}),
          ("+ overlong filtering", {"algorithm.overlong_filtering": "true"}),
          ("+ Clip-Higher", {"actor.clip_ratio_high": 0.28}),
          ("+ soft overlong punishment", {"algorithm.overlong_filtering": "false", "reward.overlong_buffer": "true"}),
          ("+ token-level loss", {"actor.loss_agg_mode": "token-mean"}),
          ("+ dynamic sampling (DAPO)", {"algorithm.filter_groups": "true"})]
PAPER = [30, 36, 38, 41, 42, 50]  # AIME 2024, avg@32, Table 1
LEARNS_NOTHING = 4  # exit code: all groups wrong, step after step; the last evaluation holds for the steps that are left
KEPT_TEACHERS = 5  # of the right and short teachers' rows, one in so many


def rows_of(path):
    return [json.loads(line) for line in open(path)]


class Ladder:
    def __init__(self, a):
        self.a, self.out = a, pathlib.Path(a.out)

    def program(self, name, *args, log, may_end=()):
        command = [str(pathlib.Path(self.a.bin).resolve() / name), *map(str, args)]
        with open(log, "a") as f:
            code = subprocess.run(command, stdout=f, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL).returncode
        if code != 0 and code not in may_end:
            sys.exit(f"{' '.join(command)}: exit {code}; see {log}")

    def cold_start(self):
        """The model that every run starts from: the demo's, but with fewer good teachers in the crowd."""
        if (self.out / "crowd/config.json").exists():
            return
        self.out.mkdir(parents=True, exist_ok=True)
        log = self.out / "cold_start.log"
        self.program("dapo", "chain", self.out, "--overwrite", log=log)
        good, crowd = 0, []
        for row in rows_of(self.out / "data/crowd.jsonl"):
            good += row["teacher"] == "steps"
            if row["teacher"] != "steps" or good % KEPT_TEACHERS == 0:
                crowd.append(row)
        with open(self.out / "data/crowd.jsonl", "w") as f:
            f.writelines(json.dumps(row) + "\n" for row in crowd)
        device = ["--set", f"model.device={self.a.device}"]
        limit = ["--set", f"data.max_response_length={SAME['data.max_response_length']}"]
        for config, model, files, out in (("demo_skill", "model", "skill", "skill"), ("demo_crowd", "skill", "crowd", "crowd")):
            self.program("dapo", "sft", f"{self.a.configs}/{config}.cfg", "--overwrite", *device, *limit,
                         "--set", f"model.path={self.out / model}", "--set", f"sft.files={self.out / 'data' / files}.jsonl",
                         "--set", f"sft.out={self.out / out}", log=log)

    def run(self, level, seed):
        """One run's metrics rows; those of an earlier call if it is finished."""
        folder = self.out / f"row{level}_seed{seed}"
        settings = {**SAME, "model.path": self.out / "crowd", "model.device": self.a.device,
                    "data.train_files": self.out / "data/train.jsonl", "data.val_files": self.out / "data/test.jsonl",
                    "trainer.total_steps": self.a.steps, "trainer.seed": seed, "trainer.run_dir": folder, **GRPO}
        for _, changes in LADDER[:level + 1]:
            settings.update(changes)
        settings.update(self.a.set)
        args = [x for key, value in settings.items() for x in ("--set", f"{key}={value}")]
        self.program("dapo_train", f"{self.a.configs}/demo.cfg", *args, log=self.out / f"row{level}_seed{seed}.log",
                     may_end=[LEARNS_NOTHING])
        print(f"row {level} seed {seed} done", flush=True)
        return rows_of(folder / "metrics.jsonl")

    def table(self, runs):
        """Accuracy on the test set by row: at a quarter, half and the end of the run, and its mean over all evaluations."""
        seeds = self.a.seeds
        marks = [self.a.steps // 4, self.a.steps // 2, self.a.steps]
        text = [f"| | paper, AIME | step {marks[0]} | step {marks[1]} | step {marks[2]} | mean of the curve | responses drawn |",
                "|---|---:|---:|---:|---:|---:|---:|"]
        for level in self.a.rows:
            name, _ = LADDER[level]
            curves = [accuracy(runs[level, s], self.a.steps) for s in seeds]
            cells = [spread([c[m] for c in curves]) for m in marks]
            cells.append(spread([statistics.mean(v for k, v in c.items() if k) for c in curves]))
            drawn = statistics.mean(sum(r.get("groups/generated", 0) for r in runs[level, s]) * 16 for s in seeds)
            text.append(f"| {name} | {PAPER[level]} | " + " | ".join(cells) + f" | {drawn:,.0f} |")
        start = statistics.mean(accuracy(runs[self.a.rows[0], s], 0)[0] for s in seeds)
        return (f"Right answers on 512 test problems, %, mean ± standard deviation of {len(seeds)} seeds; before training {start:.1f}.\n\n"
                + "\n".join(text) + "\n")


def accuracy(rows, steps):
    """Of each evaluation, %."""
    curve = {r["step"]: 100 * r["eval/avg"] for r in rows if "eval/avg" in r}
    last = max(curve)
    return {**curve, **{s: curve[last] for s in range(last, steps + 1, SAME["eval.every"])}}


def spread(values):
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} ± {deviation:.1f}"


def drawing(runs, rows, seeds, steps):
    def by_step(curve_of):
        """For each row of the ladder {step: [a value a seed]}."""
        result = []
        for level in rows:
            points = {}
            for s in seeds:
                for step, value in curve_of(runs[level, s]).items():
                    points.setdefault(step, []).append(value)
            result.append(points)
        return result

    right = by_step(lambda run: accuracy(run, steps))
    entropy = by_step(lambda run: {r["step"]: r["update/entropy"] for r in run
                                   if r.get("update/entropy") is not None and math.isfinite(r["update/entropy"])})
    top = math.ceil(max(statistics.mean(v) for c in entropy for v in c.values()) * 20) / 20
    return picture([panel("Right answers, test set", right, 100, range(0, 101, 25), " %"),
                    panel("Entropy of the policy, nats", entropy, top, [top * i / 4 for i in range(5)], "")],
                   [LADDER[level][0] for level in rows], "Test accuracy and entropy of each row of the ladder")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", default="runs/ladder")
    ap.add_argument("--seeds", default="1,2,3", type=lambda s: [int(x) for x in s.split(",")])
    ap.add_argument("--steps", default=40, type=int)
    ap.add_argument("--jobs", default=1, type=int, help="runs at a time")
    ap.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    ap.add_argument("--rows", default=range(len(LADDER)), type=lambda s: [int(x) for x in s.split(",")], help="of 0 to 5")
    ap.add_argument("--set", default=[], action="append", type=lambda s: s.split("=", 1), metavar="KEY=VALUE", help="in every row")
    ap.add_argument("--bin", default=".", help="folder of dapo and dapo_train")
    ap.add_argument("--configs", default="configs")
    a = ap.parse_args()
    a.set = dict(a.set)
    ladder = Ladder(a)
    ladder.cold_start()
    todo = [(level, seed) for seed in ladder.a.seeds for level in a.rows]
    with concurrent.futures.ThreadPoolExecutor(ladder.a.jobs) as pool:
        runs = dict(zip(todo, pool.map(lambda t: ladder.run(*t), todo)))
    text = ladder.table(runs)
    (ladder.out / "ladder.md").write_text(text)
    (ladder.out / "ladder.svg").write_text(drawing(runs, a.rows, a.seeds, a.steps))
    print(text)


if __name__ == "__main__":
    main()
