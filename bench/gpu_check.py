#!/usr/bin/env python3
"""Checks and measures this project on a machine with a GPU, in under ten minutes: one JSON, one log, one report.

    gpu-check [STAGE...] [--out DIR] [--budget SECONDS]     run these stages (default: all but the optional ones)
    gpu-check --list                                        list the stages
        gpu-check --report gpu-check.json [--results DIR]       write the report of an earlier run to DIR/<gpu>-<date>.md

Needs a driver, Python 3 and, only for comparisons, CUDA's libraries (the nvidia/ folders of Python environments and
/usr/local/cuda are searched). Golden models come from goldens/ and data/ in this file's folder, or $DAPO_TEST_GOLDENS and
$DAPO_TEST_DATA. Exit code 0: every stage that ran passed.
"""
import argparse, concurrent.futures, datetime, glob, json, os, pathlib, re, shutil, sys, time

sys.dont_write_bytecode = True  # the folder may be read-only, or a checkout
from gpu_machine import HERE, Run, Skip, benchmark, unpacked
from gpu_ratios import ratios
from gpu_report import report, results_file, summary

# ---- stages: each returns figures (a dict; "failed" lists the failures) or raises Skip


def machine(r):
    """driver, GPU, memory, clocks; do the programs start?"""
    f = {"host": os.uname().release, "cores": r.cores, "libc": " ".join(os.confstr("CS_GNU_LIBC_VERSION").split())}
    needs = HERE / "glibc"
    if needs.exists():
        need = needs.read_text().strip()
        number = lambda v: [int(x) for x in re.findall(r"\d+", v)]
        if number(f["libc"]) < number(need):
            return {**f, "failed": [f"these programs need glibc {need}, this machine has {f['libc']}: build them there"]}
    f["libraries"] = r.libraries
    if not r.sim:
        query = "name,driver_version,memory.total,memory.used,clocks.max.sm,clocks.max.mem,power.limit,compute_cap"
        code, text, _ = r.call(["nvidia-smi", "--query-gpu=" + query, "--format=csv,noheader"], 30) \
            if shutil.which("nvidia-smi") else (0, "", 0)
        if text and code == 0:
            f.update(zip(("gpu", "driver", "memory", "used", "sm_clock", "memory_clock", "power", "sm"),
                         [x.strip() for x in text.splitlines()[0].split(",")]))
    code, text, _ = r.call([r.program("dapo"), "--help"], 30)
    if code != 0 and r.fallback.exists():  # libstdc++ is missing or older than the one the programs were built with
        r.env["LD_LIBRARY_PATH"] = str(r.fallback) + ":" + r.env["LD_LIBRARY_PATH"]
        f["libstdc++"] = "bundled"
        code, text, _ = r.call([r.program("dapo"), "--help"], 30)
    if code != 0:
        return {**f, "failed": [f"dapo does not start: {text.strip().splitlines()[-1] if text.strip() else code}"]}
    code, text, _ = r.call([r.program("test_cuda"), "--gtest_filter=CudaDevice.*"], 60)
    said = re.search(r"^cuda: .*", text, re.M)
    f["device"] = said.group(0) if said else "?"
    if code == 0:
        f.setdefault("gpu", f["device"].removeprefix("cuda: ").split(" (sm_")[0])
    return {**f, "failed": [] if code == 0 else [f"no backend: {reason(text)}"]}


def outcome(text):
    """Parses GoogleTest's output up to the first failure: tests passed, skipped, and the one that failed, crashed or hung."""
    passed, skipped, now = [], [], None
    for what, name in re.findall(r"^\[ +(RUN|OK|SKIPPED|FAILED) +\] ([^\s,]+)", text, re.M):
        if what == "RUN":
            now = name
        elif what == "FAILED":
            return passed, skipped, name
        elif name == now:
            (passed if what == "OK" else skipped).append(name)
            now = None
    return passed, skipped, now


def tests(r, wanted, small=None, shards=None):
    """GoogleTest in several processes. After a device fault everything in its process fails, so each process ends at its first
    failure and the next one continues after it."""
    program, filter_ = r.program("test_cuda"), (small or wanted) if r.sim else wanted
    shards = 1 if r.sim else shards or max(1, min(8, r.cores // 2))
    threads = {} if r.sim else {"OMP_NUM_THREADS": str(max(1, r.cores // shards))}

    _, listed, _ = r.call([program, "--gtest_list_tests", "--gtest_filter=" + filter_], 30)
    names, suite = [], ""
    for line in listed.splitlines():
        if line.startswith("  "):
            names.append(suite + line.split("#")[0].strip())
        elif re.match(r"\S+\.( |$)", line):
            suite = line.split("#")[0].strip()

    def shard(todo):
        passed, skipped, failed, why = [], [], {}, ""
        while todo and r.left() > 1:
            code, text, _ = r.call([program, "--gtest_filter=" + ":".join(todo), "--gtest_fail_fast", "--gtest_color=no"],
                                   0.75 * r.left(), env=threads)
            ok, skips, bad = outcome(text)
            passed += ok
            skipped += skips
            why = why or "".join(re.findall(r"skipped: (.*)", text)[:1])
            if bad is None and code == 0:
                break
            if bad is None:  # it ended between tests, or before the first
                bad = next((n for n in todo if n not in ok + skips), todo[-1])
            failed[bad] = "time ran out" if code is None else reason(text[max(0, text.rfind("[ RUN      ] " + bad)):])
            if "[ RUN      ]" not in text:
                break  # the others will not start either
            done = {bad, *ok, *skips}
            todo = [n for n in todo if n not in done]
        return passed, skipped, failed, why

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(shard, [names[i::shards] for i in range(shards)]))
    passed, skipped = ([n for p in parts for n in p[k]] for k in (0, 1))
    failed = {n: why for p in parts for n, why in p[2].items()}
    f = {"tests": len(names), "passed": len(passed), "skipped": len(skipped),
         "failed": [n for n in names if n in failed], "first_reasons": dict(list(failed.items())[:12])}
    not_run = [n for n in names if n not in failed and n not in passed and n not in skipped]
    if not_run:
        f["not_run"] = len(not_run)
        f["failed"] = f["failed"] or ["time ran out"]
    if len(names) == 0:
        f["failed"] = [f"no test matches {filter_}"]
    elif len(skipped) == len(names):
        raise Skip(next((p[3] for p in parts if p[3]), "every test was skipped"))
    return f


def reason(text):
    at = re.search(r"Failure\n(.*?)\n\[", text, re.S) or re.search(r"(C\+\+ exception .*|.*rror.*)", text)
    return " | ".join((at.group(1) if at else text[-300:]).split("\n"))[:400]


def trainer(r):
    """five DAPO steps of a toy equal the CPU's, in f32; bf16 samples what it trains on"""
    return tests(r, "CudaTrainer.*:-*Replays*", "CudaTrainer.FiveStepsEqualTheCpus", 2)


def equalities(r):
    """rollout == training bits, recompute, packs, segments, updates"""
    return tests(r, "*Equality*:Packs.*:Update.*", "Packs.*:Update.*")


def golden(r):
    """golden models against transformers in f64: log-probs, gradients, AdamW steps, greedy tokens"""
    return tests(r, "*Golden*", "*Golden.Forward/llama")


def ops(r):
    """every op against fp64: values, gradients, guards, repeated bits; row invariance; both kinds of products"""
    return tests(r, "*OpTest*:OpProperties.*:CudaProducts.*:SampleTest.*", "Plain/OpTest.EqualsReference/1*:CudaProducts.*")


def dapo_run(r, name, device, dtype, settings, cfg="demo.cfg", sft=False, limit=1e9):
    """A run of the demo's config; its metrics."""
    folder = r.work / name
    argv = [r.program("dapo"), "sft"] if sft else [r.program("dapo_train")]
    argv += [r.configs / cfg, "--set", f"model.device={device}", "--set", f"model.dtype={dtype}"]
    for key, value in {**settings, ("sft.out" if sft else "trainer.run_dir"): folder}.items():
        argv += ["--set", f"{key}={json.dumps(str(value) if isinstance(value, pathlib.Path) else value)}"]
    code, text, seconds = r.call(argv, limit)
    metrics = []
    if not sft and (folder / "metrics.jsonl").exists():
        lines = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
        metrics = [m for m in lines if "update/loss" in m]
    evals = [float(x) for x in re.findall(r"eval after step \d+: avg@\d+ ([\d.]+) %", text)]
    losses = [float(x) for x in re.findall(r"sft \d+/\d+\s+loss ([\d.naif]+)", text)]
    said = (text.strip().splitlines() or ["time ran out"])[-1]
    return {"ok": code == 0, "said": f"{name}: exit {code}: {said}", "metrics": metrics, "evals": evals, "losses": losses,
            "seconds": round(seconds, 2)}


def demo(r):
    """the demo: cold start and DAPO on the device, its first steps against the CPU's, bf16 too"""
    code, text, _ = r.call([r.program("dapo"), "chain", r.work / "chain"], 60)
    if code != 0:
        return {"failed": [f"dapo chain: {text[-200:]}"]}
    data, test = r.work / "chain/data", "test.jsonl"
    if r.sim:
        test = "few.jsonl"
        (data / test).write_text("".join((data / "test.jsonl").read_text().splitlines(True)[:8]))
    small = {"sft.batch_size": 4, "data.train_batch_size": 2, "rollout.n": 4, "actor.ppo_mini_batch_size": 1,
             "rollout.max_num_seqs": 8, "data.max_response_length": 4, "reward.overlong_buffer_len": 2,
             "algorithm.filter_groups": False, "eval.every": 0} if r.sim else {}
    pick = lambda *keys: {k: v for k, v in small.items() if k.startswith(keys)}
    sft = {"data.max_response_length": 48, **pick("sft")}
    f, failed, cold = {}, [], {}
    for device in ("cuda", "cpu"):
        # The same first steps on both; the device then continues to the end.
        steps = 2 if r.sim else 500 if device == "cuda" else 100
        cold[device] = dapo_run(r, f"skill-{device}", device, "f32",
                                {**sft, "model.path": r.work / "chain/model", "sft.files": data / "skill.jsonl",
                                 "sft.steps": steps}, "demo_skill.cfg", True)
    crowd = dapo_run(r, "crowd", "cuda", "f32",
                     {**sft, "model.path": r.work / "skill-cuda", "sft.files": data / "crowd.jsonl",
                      "sft.steps": 1 if r.sim else 150}, "demo_crowd.cfg", True)
    runs = {"sft cuda": cold["cuda"], "sft cpu": cold["cpu"], "crowd": crowd}
    f["sft_first_loss"] = [cold[d]["losses"][0] if cold[d]["losses"] else None for d in ("cuda", "cpu")]
    f["sft_seconds"] = [cold["cuda"]["seconds"], cold["cpu"]["seconds"]]
    if not all(x["ok"] for x in runs.values()):
        return {**f, "failed": [x["said"] for x in runs.values() if not x["ok"]]}
    if None in f["sft_first_loss"] or abs(f["sft_first_loss"][0] - f["sft_first_loss"][1]) > 2e-4:
        failed.append(f"first losses of sft differ: {f['sft_first_loss']}")
    base = {"model.path": r.work / "crowd", "data.train_files": data / "train.jsonl", "data.val_files": data / test,
            **pick("data", "rollout", "actor", "reward", "algorithm", "eval")}
    steps = {"cuda-f32": 1 if r.sim else 20, "cpu-f32": 1 if r.sim else 3, "cuda-bf16": 0 if r.sim else 5}
    got = {}
    for name, n in steps.items():
        if n:
            settings = {**base, "trainer.total_steps": n}
            if name != "cuda-f32" and not r.sim:
                settings["eval.every"] = 0
            got[name] = dapo_run(r, name, *name.split("-"), settings)
            m = got[name]["metrics"]
            f[name] = {"seconds": got[name]["seconds"], "steps": len(m), "evals": got[name]["evals"],
                       "acc": [x["reward/acc"] for x in m], "loss": [x["update/loss"] for x in m],
                       "seconds_a_step": [round(x["seconds"], 4) for x in m]}
            if not got[name]["ok"] or not m:
                failed.append(got[name]["said"])
            failed += [f"{name}, step {x['step']}: rollout and training differ by {x['update/mismatch']}" for x in m
                       if x["update/mismatch_tokens"] and (x["update/mismatch"] != 0 or x["update/ratio_error"] != 0)]
            if m and not any(x["update/mismatch_tokens"] for x in m):
                failed.append(f"{name}: no step compared rollout's log-probs with training's")
    cuda, cpu = got["cuda-f32"]["metrics"], got["cpu-f32"]["metrics"]
    if cuda and cpu:
        # The same weights and random numbers: only rounding may change a few tokens.
        a, b = cuda[0], cpu[0]
        f["step_1"] = {k: [a[k], b[k]] for k in ("reward/acc", "response/length_mean", "update/entropy", "update/grad_norm")}
        off = lambda k: a[k] is None or b[k] is None or abs(a[k] - b[k]) > 0.03
        if off("reward/acc") or off("update/entropy"):
            failed.append(f"first step unlike the CPU's: {f['step_1']}")
    if not r.sim and (got["cuda-f32"]["evals"] or [0])[-1] < 95:
        failed.append(f"the demo does not reach 95 %: {got['cuda-f32']['evals']}")
    return {**f, "failed": failed}


def bench(r):
    """each op at the shapes of 0.5B and 7B: time, share of the measured peaks, wrong elements, cuBLASLt, cuDNN"""
    sizes = ["--shape", "toy"] if r.sim else []
    f = {"lines": [], "benchmarks": [], "failed": []}
    rows_file = r.work / "bench_ops.json"
    todo = None
    while todo is None or (todo and r.left() > 5):
        chosen = sizes + (["--benchmark_filter=swiglu|rmsnorm"] * r.sim if todo is None else ["--benchmark_filter=^(" + "|".join(re.escape(n) for n in todo) + ")$"])
        rows_file.unlink(missing_ok=True)
        part = benchmark(r, "bench_ops", *chosen, "--quick", f"--benchmark_out={rows_file}")
        f["lines"] += part["lines"]
        try:
            rows = json.loads(rows_file.read_text())["benchmarks"]
        except (OSError, ValueError, KeyError) as e:
            f["failed"] += part["failed"] + [f"bench_ops' figures: {e}"]
            break
        bad = next((i for i, row in enumerate(rows) if row.get("error_occurred")), None)
        drop = ("family_index", "per_family_instance_index", "run_name", "run_type", "repetitions", "repetition_index", "threads")
        f["benchmarks"] += [{k: v for k, v in row.items() if k not in drop} for row in rows[:None if bad is None else bad + 1]]
        if bad is None:
            f["failed"] += part["failed"]
            break
        # After a device fault every later case in the same process fails.
        f["failed"].append(f"{rows[bad]['name']}: {rows[bad].get('error_message', '?')}")
        todo = [row["run_name"] for row in rows[bad + 1:]]
    return f


def step(r):
    """rollout and training speed of random weights in the shape of Qwen2.5-0.5B, and a whole DAPO step"""
    f = {"lines": [], "json": [], "failed": []}
    for what in ("decode", "train", "step"):  # separately, so that a failure in one does not affect the others
        sizes = ["--shape", "0.5b", "--what", what]
        if r.sim:
            if what == "step":
                continue
            sizes = ["--shape", "toy", "--what", what, "--batches", "2", "--contexts", "16", "--lengths", "32", "--no-peers"]
        part = benchmark(r, "bench_step", *sizes, "--quick")
        for k in f:
            f[k] += part.get(k, [])
    return f


def peers(r):
    """optional: training and decode of 0.5B against PyTorch and transformers on this GPU, if installed"""
    return ratios(r)


SANITIZED = "*OpTest.EqualsReference/*bf16:-*151936*:*integers*"


def sanitizer(tool):
    def stage(r):
        if r.sim or not shutil.which("compute-sanitizer"):
            raise Skip("compute-sanitizer is not installed")
        code, text, _ = r.call(["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", r.program("test_cuda"),
                                "--gtest_filter=" + SANITIZED, "--gtest_brief=1"])
        errors = re.findall(r"ERROR SUMMARY: (\d+)", text)
        return {"errors": int(errors[-1]) if errors else None, "failed": [] if code == 0 else [f"{tool}: exit {code}"]}
    stage.__doc__ = f"optional: compute-sanitizer --tool {tool} on one run of each op"
    return stage


def ncu(r):
    """optional: Nsight Compute's figures of each kernel of decode and training, once per launch shape"""
    places = glob.glob("/usr/local/cuda*/bin/ncu") + sorted(glob.glob("/opt/nvidia/nsight-compute/*/ncu"), reverse=True)
    program = shutil.which("ncu") or next(iter(places), None)
    if r.sim or not program:
        raise Skip("ncu is not installed")
    sections = [x for s in ("SpeedOfLight", "MemoryWorkloadAnalysis", "WarpStateStats", "Occupancy", "LaunchStats") for x in ("--section", s)]
    code, text, _ = r.call([program, "--clock-control", "none", *sections, "--graph-profiling", "node", "--nvtx", "--nvtx-include", "decode/",
                            "--nvtx-include", "update/", "--filter-mode", "per-launch-config", "--launch-count", "1", "--csv",
                            r.program("bench_step"), "--device", "cuda", "--shape", "0.5b", "--what", "decode,train",
                            "--quick", "--no-peers"], env={"LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", "")})
    (r.out / "ncu.csv").write_text(text)
    return {"failed": [] if code == 0 else [f"ncu: exit {code}"]}


# name: stage, time limit in seconds, whether it runs by default
STAGES = {
    "machine": (machine, 60, True),
    "trainer": (trainer, 60, True),
    "ops": (ops, 150, True),
    "step": (step, 100, True),
    "bench": (bench, 150, True),
    "equalities": (equalities, 60, True),
    "golden": (golden, 90, True),
    "demo": (demo, 150, True),
    "peers": (peers, 180, False),
    "memcheck": (sanitizer("memcheck"), 240, False),
    "racecheck": (sanitizer("racecheck"), 240, False),
    "ncu": (ncu, 240, False),
}


def run_stages(r, names, result):
    for name in names:
        stage, limit, _ = STAGES[name]
        start = time.monotonic()
        r.stage_end = start + limit * (4 if r.sim else 1)
        r.log.write(f"\n==== {name}\n")
        entry = {"name": name, "what": stage.__doc__}
        try:
            if r.left() <= 0:
                raise Skip("the budget is used up")
            if result["stages"] and result["stages"][0]["status"] == "failed":
                raise Skip("no device to run on")
            figures = stage(r)
            entry["status"] = "failed" if figures.get("failed") else "passed"
            entry["failed"] = figures.pop("failed", [])
            entry["figures"] = figures
        except Skip as e:
            entry.update(status="skipped", note=str(e), failed=[])
        except Exception as e:  # a stage's own error never stops the others
            entry.update(status="failed", failed=[f"{type(e).__name__}: {e}"])
        entry["seconds"] = round(time.monotonic() - start, 1)
        result["stages"].append(entry)
        result["passed"] = all(s["status"] != "failed" for s in result["stages"])
        (r.out / "gpu-check.json").write_text(json.dumps(result, indent=1))
        (r.out / "report.md").write_text(report(result))
        r.say(f"{name:11} {entry['status']:8} {entry['seconds']:6.1f} s  {summary(entry)}")


def main():
    ap = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    ap.add_argument("stages", nargs="*", metavar="STAGE")
    ap.add_argument("--device", default="cuda", choices=["cuda", "sim"], help="sim: tiny sizes, programs built with the simulator")
    ap.add_argument("--out", default=os.environ.get("OUT", "gpu-check-out"), help="where JSON, log and report go ($OUT)")
    ap.add_argument("--bin", help="folders of the programs, separated by : (default: those next to this file)")
    ap.add_argument("--unpack", action="store_true", help="unpack the programs (bin/, lib/) and exit")
    ap.add_argument("--configs", default=str(HERE / "configs"))
    ap.add_argument("--budget", type=float, default=570, help="total seconds")
    ap.add_argument("--list", action="store_true")
    ap.add_argument("--report", metavar="JSON")
    ap.add_argument("--results", metavar="DIR", default="bench/results")
    a = ap.parse_args()
    if a.list:
        for name, (stage, limit, default) in STAGES.items():
            print(f"{name:11} {limit:4} s  {stage.__doc__}")
        return 0
    if a.report:
        result = json.loads(pathlib.Path(a.report).read_text())
        path = results_file(a.results, result)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(report(result))
        print(path)
        return 0
    if a.unpack:
        print(unpacked(a.out) / "bin")
        return 0
    unknown = [s for s in a.stages if s not in STAGES]
    if unknown:
        ap.error(f"no stage {unknown[0]}; there are {', '.join(STAGES)}")
    names = [n for n in STAGES if (n in a.stages if a.stages else STAGES[n][2])]
    if "machine" not in names:
        names.insert(0, "machine")  # it finds the libraries
    r = Run(a)
    result = {"command": "gpu-check " + " ".join(sys.argv[1:]), "device": a.device, "passed": True,
              "date": datetime.datetime.now().isoformat(timespec="seconds"), "stages": []}
    run_stages(r, names, result)
    count = lambda status: sum(s["status"] == status for s in result["stages"])
    shutil.rmtree(r.work, ignore_errors=True)
    r.say(f"{count('passed')} passed, {count('failed')} failed, {count('skipped')} skipped: {r.out}/gpu-check.json")
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
