#!/usr/bin/env python3
"""Every system call of a run that changes its folder is failed, or the process killed there, or the power cut; the same command
must then end with the bits of an undisturbed run.

DAPO_CRASH: how many calls of each kind are tried ("all" in the nightly run). Prints its results as GoogleTest does.
"""
import errno, hashlib, json, os, pathlib, random, shutil, subprocess, sys, tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "tests"))
from small_run import make_tuned

PROGRAMS = pathlib.Path(os.environ.get("DAPO_PROGRAMS", ROOT / "build/release")).resolve()
TIMES = ("seconds", "_per_s", "gflops", "preemptions", "verifier_slow")
CONFIG = """[model]
path = "tuned"
threads = 1
[data]
train_files = "data/train.jsonl"
val_files = "val.jsonl"
prompt_template = "raw"
max_prompt_length = 48
max_response_length = 12
train_batch_size = 2
[rollout]
n = 4
[actor]
ppo_mini_batch_size = 1
[algorithm]
filter_groups = false
[reward]
overlong_buffer_len = 8
[eval]
before_train = false
every = 2
n = 1
pass_k = 1
[trainer]
total_steps = 3
save_every = 1
keep = 1
stuck_patience = 0
log_rollouts = false
run_dir = "run"
"""


class Crash:
    def __init__(self, folder):
        self.at = pathlib.Path(folder)
        self.shim = self.at / "shim.so"
        subprocess.run([os.environ.get("CXX", "g++"), "-std=c++20", "-O1", "-shared", "-fPIC", "-o", self.shim,
                        ROOT / "tests/host/app/crash_shim.cpp", "-ldl"], check=True)
        make_tuned(PROGRAMS, self.at)
        (self.at / "val.jsonl").write_text('{"prompt": "1", "answer": "2"}\n' * 1)
        (self.at / "run.cfg").write_text(CONFIG)

    def train(self, **shim):
        """Runs dapo_train to its end, with the shim if it has orders. Returns its exit code, negative for a signal."""
        env = dict(os.environ, OMP_NUM_THREADS="1")
        if shim:
            env.update({"LD_PRELOAD": str(self.shim), "SHIM_ROOT": str((self.at / "run").resolve())})
            env.update({"SHIM_" + k.upper(): str(v) for k, v in shim.items()})
        self.ran = subprocess.run([PROGRAMS / "dapo_train", "run.cfg"], cwd=self.at, env=env, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=3000)
        return self.ran.returncode

    def fresh(self):
        shutil.rmtree(self.at / "run", ignore_errors=True)
        (self.at / "log").unlink(missing_ok=True)

    def result(self):
        out = {}
        for name in ("model/model.safetensors", "checkpoints/step_3/optimizer.safetensors", "checkpoints/step_3/model/model.safetensors"):
            out[name] = hashlib.sha256((self.at / "run" / name).read_bytes()).hexdigest()
        rows = [json.loads(line) for line in (self.at / "run/metrics.jsonl").read_text().splitlines()]
        out["metrics"] = [{k: v for k, v in row.items() if not any(t in k for t in TIMES)} for row in rows]
        return out

    def cut_power(self):
        """Undoes, by the log, what a power cut may undo: data that was not synced, and names in folders that were not."""
        data, names = set(), []  # files with unsynced data; unsynced (folder, what, path, other)
        moved = lambda path, a, b: b + path[len(a):] if path == a or path.startswith(a + "/") else path
        for line in (self.at / "log").read_text().splitlines():
            what, path, other = line.split("\t")
            if what == "data": data.add(path)
            elif what == "sync":
                data.discard(path)
                names = [n for n in names if n[0] != path]
            elif what == "create": names.append((os.path.dirname(path), what, path, ""))
            elif what in ("rename", "exchange"):
                if what == "exchange":
                    swap = lambda p: moved(p, path, other) if p.startswith(path) else moved(p, other, path)
                else:
                    swap = lambda p: moved(p, path, other)
                data = {swap(p) for p in data}
                names = [(swap(f), w, swap(p), o) for f, w, p, o in names]
                names.append((os.path.dirname(other), what, path, other))
            elif what == "remove": data.discard(path)
        for path in data:  # names were written, data was not
            if os.path.isfile(path) and not os.path.islink(path): os.truncate(path, os.path.getsize(path) // 2)
        for _, what, path, other in reversed(names):
            if what == "rename" and os.path.lexists(other) and not os.path.lexists(path): os.rename(other, path)
            if what == "create" and os.path.lexists(path):
                if os.path.isdir(path) and not os.path.islink(path): shutil.rmtree(path)
                else: os.remove(path)


def chosen(count):
    """The calls to disturb: all, or some spread over the run."""
    most = os.environ.get("DAPO_CRASH", "8")
    calls = list(range(1, count + 1))
    return calls if most == "all" else sorted(random.Random(7).sample(calls, min(int(most), count)))


def main():
    failures, passed = [], 0
    with tempfile.TemporaryDirectory() as folder:
        crash = Crash(folder)
        crash.fresh()
        assert crash.train(count=crash.at / "count", log=crash.at / "log") == 0, crash.ran.stdout
        count, whole = int((crash.at / "count").read_text()), crash.result()
        calls = [line.split("\t")[0] for line in (crash.at / "log").read_text().splitlines()]
        print(f"{count} calls: " + ", ".join(f"{calls.count(what)} {what}" for what in sorted(set(calls))), flush=True)

        def goes_on(name, at):
            for _ in range(3):  # a start may find what the last one could not write
                code = crash.train()
                if code == 0: break
            if code != 0: failures.append(f"{name} at call {at} of {count}: then exit {code}: {crash.ran.stdout[-400:]}")
            elif crash.result() != whole: failures.append(f"{name} at call {at} of {count}: other bits: {crash.ran.stdout[-400:]}")

        tests = {"Killed": dict(do="kill"), "PowerCut": dict(do="kill", log=crash.at / "log"), "NoSpace": dict(do=errno.ENOSPC),
                 "NoSpaceForAWhile": dict(do=errno.ENOSPC, more=25), "InputOutputError": dict(do=errno.EIO)}
        for name, orders in tests.items():
            before = len(failures)
            for at in chosen(count):
                crash.fresh()
                code = crash.train(at=at, count=crash.at / "count", **orders)
                if code == 0 and (ended := int((crash.at / "count").read_text())) < at:  # a page with times has a block less
                    print(f"{name} at call {at}: this run made {ended}")
                elif name in ("Killed", "PowerCut"):
                    if code != -9: failures.append(f"{name} at call {at}: exit {code}")
                elif code not in (0, 2, 3): failures.append(f"{name} at call {at}: exit {code}: {crash.ran.stdout[-400:]}")
                if name == "PowerCut": crash.cut_power()
                if code == 0 and crash.result() != whole: failures.append(f"{name} at call {at}: exit 0, other bits")
                if code != 0: goes_on(name, at)
                if len(failures) > before + 3: break
            print(f"[  FAILED  ] Crash.{name} (0 ms)" if len(failures) > before else f"[       OK ] Crash.{name}", flush=True)
            passed += len(failures) == before
    for text in failures: print(text)
    print(f"[  PASSED  ] {passed} tests.")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
