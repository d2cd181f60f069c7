#!/usr/bin/env python3
"""dapo_train with several ranks as processes: grids, restarts, faults, ranks on the simulator's GPUs.

Prints its results as GoogleTest does. Skips, saying so, where there is no MPI.
"""
import json, os, pathlib, re, shutil, signal, socket, subprocess, sys, time

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from small_run import SFT, make_tuned
from rank_processes import (BUSY_S, DEAD_S, LOOP, OPEN_MPI, PROGRAMS, SIM_TRAIN, TRAIN, Ran, environment, environment_of, main,
                            mpirun, nobody_left, ours, start)


CONFIG = """[model]
path = "tuned"
threads = 1
device = "cpu"
[data]
train_files = "data/train.jsonl"
prompt_template = "raw"
max_prompt_length = 48
max_response_length = 12
train_batch_size = 4
[rollout]
n = 4
[actor]
ppo_mini_batch_size = 2
[algorithm]
filter_groups = false
[reward]
overlong_buffer_len = 8
[trainer]
total_steps = 4
save_every = 1
stuck_patience = 0
run_dir = "run"
[parallel]
dp = 2
"""

# Of the simulator's device; the entropy bonus gives gradients where all responses are wrong.
GPU_CONFIG = CONFIG.replace('"tuned"', '"small"').replace('device = "cpu"', 'device = "cuda"\ndtype = "f32"').replace("train_batch_size = 4", "train_batch_size = 2").replace(
    "ppo_mini_batch_size = 2", "ppo_mini_batch_size = 1\nentropy_coeff = 0.1\nlr = 1e-3\nlr_warmup_steps = 0").replace(
    "max_response_length = 12", "max_response_length = 10").replace("n = 4", "n = 2").replace("total_steps = 4\nsave_every = 1", "total_steps = 2")
SIM_DEVICE = "cuda: NVIDIA H100 80GB HBM3 (simulated) (sm_90, 132 SMs, 85.9 GB), f32"


class Tests:
    def __init__(self, folder):
        self.at = folder

    def train(self, *arguments):
        return [TRAIN, "run.cfg", *arguments]

    def prepare(self):
        """A model, data and a config of two ranks, without a run."""
        shutil.rmtree(self.at / "run", ignore_errors=True)
        if (self.at / "run.cfg").exists(): return
        make_tuned(PROGRAMS, self.at)
        (self.at / "run.cfg").write_text(CONFIG)

    def prepare_gpu(self):
        self.prepare()
        if (self.at / "gpu.cfg").exists(): return
        shutil.copytree(self.at / "model", self.at / "small_model")
        config = self.at / "small_model/config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}))
        (self.at / "small.cfg").write_text(SFT.replace('"model"', '"small_model"').replace('"tuned"', '"small"'))
        subprocess.run([PROGRAMS / "dapo", "sft", "small.cfg"], cwd=self.at, check=True, stdout=subprocess.DEVNULL)
        (self.at / "gpu.cfg").write_text(GPU_CONFIG)
        (self.at / "dapo").mkdir()  # speeds, which the simulator would take long to measure
        known = {f"{socket.gethostname()}; {SIM_DEVICE}": {"flops": 1e9, "bytes_per_second": 1e9, "date": "2026-01-01"}}
        (self.at / "dapo/ceilings.json").write_text(json.dumps(known))

    def steps(self):
        return [json.loads(line)["step"] for line in (self.at / "run/metrics.jsonl").read_text().splitlines()]

    def test_dapo_train_from_one_command(self):
        self.prepare()
        ran = Ran(*self.train(), cwd=self.at).expect(0, lines=0)
        assert self.steps() == [1, 2, 3, 4], self.steps()
        assert [len(re.findall(rf"^step {n}/4", ran.out, re.M)) for n in (1, 2, 3, 4)] == [1, 1, 1, 1], ran  # rank 0 alone prints
        assert "step 4/4" in (self.at / "run/rank_1.log").read_text()
        assert not (self.at / "run/rank_0.log").exists()
        Ran(*self.train("--set", "actor.lr=-1"), cwd=self.at).expect(2, "actor.lr")
        Ran(*self.train("--set", "data.train_files=none.jsonl"), cwd=self.at).expect(2, "^dapo_train: .*none.jsonl")
        mpirun("-n", 2, "sh", "-c", f"cd {self.at} && exec {TRAIN} run.cfg --set actor.lr=$((1 + $OMPI_COMM_WORLD_RANK))e-6").expect(
            2, r"rank 1 on \S+ has another actor.lr than rank 0 on \S+: 2e-06 against 1e-06")

    def grid(self, dp, tp, steps, *more):
        return Ran(*self.train("--set", f"parallel.dp={dp}", "--set", f"parallel.tp={tp}", "--set", f"trainer.total_steps={steps}", *more), cwd=self.at)

    def lines(self):
        return [json.loads(line) for line in (self.at / "run/metrics.jsonl").read_text().splitlines()]

    def drawn(self, step):
        """The tokens of a step's responses, in order."""
        return [json.loads(line)["ids"] for line in (self.at / f"run/rollouts/step_{step}.jsonl").read_text().splitlines()]

    def weights(self):
        return (self.at / "run/model/model.safetensors").read_bytes()

    def test_dapo_train_on_grids(self):
        """In f32 any grid draws the same tokens; one grid repeats to the bit, whenever it exchanges gradients."""
        f32 = ("--set", "model.dtype=f32")
        want, weights = None, {}
        for dp, tp, overlap in ((1, 1, "true"), (2, 2, "true"), (2, 2, "false")):
            shutil.rmtree(self.at / "run", ignore_errors=True)
            self.prepare()
            self.grid(dp, tp, 2, *f32, "--set", f"parallel.overlap={overlap}").expect(0, lines=0)
            run = [self.drawn(step) for step in (1, 2)]
            want = want or run
            assert run == want, f"{dp} x {tp} draws other tokens"
            assert all(line["update/mismatch"] == 0 for line in self.lines()), self.lines()
            assert all((line["update/exchange_bytes"] > 0) == (dp > 1) for line in self.lines()), self.lines()
            again = weights.setdefault((dp, tp), self.weights())
            assert again == self.weights(), "a run on the same grid has other weights"

    def test_dapo_train_goes_on_on_another_grid(self):
        self.prepare()
        for steps, (dp, tp) in enumerate(((1, 1), (2, 2), (1, 4), (1, 1)), 1):
            ran = self.grid(dp, tp, steps).expect(0, lines=None)
            assert steps == 1 or "goes on from" in ran.out, ran
        assert self.steps() == [1, 2, 3, 4], self.steps()
        assert all(line["update/mismatch"] == 0 for line in self.lines()), self.lines()

    def test_dapo_train_chooses_the_smallest_split_that_fits(self):
        self.prepare()
        self.grid(2, "auto", 1).expect(0, lines=0)
        plan = self.grid(4, "auto", 1, "--plan").expect(0, lines=0).out
        assert re.search(r"ranks +4 = 4 x 1", plan) and re.search(r"the model splits over +1, 2, 4 ranks", plan), plan

    def test_grids_that_cannot_be(self):
        self.prepare()
        self.grid(1, 3, 1).expect(2, r"parallel.tp = 3: the model cannot be split over so many ranks: .*; it can be over 1, 2, 4$")
        self.grid(16, 1, 1).expect(2, "parallel.dp = 16: a mini-batch has 8 responses")
        self.grid(1, 0, 1).expect(2, "parallel.tp = 0 is too small: at least 1", lines=1)
        three = ["mpirun", "--oversubscribe", "-n", "3", *self.train("--set", "parallel.tp=2")]
        Ran(*three, cwd=self.at, **OPEN_MPI).expect(2, "parallel.dp x parallel.tp = 4 ranks, but mpirun started 3")
        self.assert_no_run()

    def test_an_interrupted_grid_saves_and_goes_on(self):
        self.prepare()
        child = start(self.train("--set", "parallel.tp=2", "--set", "trainer.total_steps=1000"), cwd=self.at)
        begin, log = time.time(), self.at / "run/rank_3.log"
        while time.time() < begin + 100 and not (log.exists() and "step 2/1000" in log.read_text()): time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=100)
        assert child.returncode == 130 and "interrupted: saving" in err, (child.returncode, out[-500:], err)
        nobody_left()
        last = self.steps()[-1]
        self.grid(1, 2, last + 1).expect(0, lines=None)
        assert self.steps() == list(range(1, last + 2)), self.steps()

    def rank_of(self, number, seconds=100):
        """The process of a rank, once it runs."""
        begin = time.time()
        while time.time() < begin + seconds:
            for pid in ours():
                if f"OMPI_COMM_WORLD_RANK={number}".encode() in environment_of(pid): return pid
            time.sleep(0.05)

    def test_dapo_train_goes_on_by_itself_after_a_rank_is_killed(self):
        self.prepare()
        child = start(self.train("--restarts", 2, "--set", "trainer.total_steps=10000"), cwd=self.at)
        done = lambda: len((self.at / "run/metrics.jsonl").read_text().splitlines()) if (self.at / "run/metrics.jsonl").exists() else 0
        def wait_for(what):
            begin = time.time()
            while time.time() < begin + 100 and child.poll() is None and not what(): time.sleep(0.02)
        wait_for((self.at / "run/rank_1.log").exists)  # the run has begun, and need not have a checkpoint
        os.kill(self.rank_of(1), signal.SIGKILL)
        for killed in (1, 2):
            before = done()
            wait_for(lambda: done() >= before + 3)  # each step has a checkpoint
            if killed == 1: os.kill(self.rank_of(1), signal.SIGKILL)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=100)
        assert child.returncode == 130, (child.returncode, out[-500:], err)
        want = [r"rank 1 \(pid", r"starts the ranks again \(1 of 2", r"rank 1 \(pid", r"starts the ranks again \(2 of 2", "interrupted: saving"]
        lines = [line for line in err.splitlines() if line]
        assert len(lines) == len(want) and all(re.search(w, l) for w, l in zip(want, lines)), err
        assert self.steps() == list(range(1, len(self.steps()) + 1)), self.steps()
        assert "goes on from" in out, out
        nobody_left()

    def test_restarts_where_they_cannot_be(self):
        self.prepare()
        mpirun("-n", 2, "sh", "-c", f"cd {self.at} && exec {TRAIN} run.cfg --restarts 1").expect(2, "--restarts: mpirun started this rank")
        Ran(*self.train("--restarts", 1, "--set", "parallel.dp=1"), cwd=self.at).expect(2, "--restarts: this run has one rank")
        Ran(*self.train("--restarts", -1), cwd=self.at).expect(2, "--restarts", lines=None)
        self.assert_no_run()

    def assert_no_run(self):
        assert not (self.at / "run").exists(), "a run has begun"

    def test_dapo_train_when_a_rank_is_killed_or_the_run_interrupted(self):
        self.prepare()
        log = self.at / "run/rank_1.log"
        for end, code in [(signal.SIGKILL, 5), (signal.SIGINT, 130)]:
            before = log.stat().st_size if log.exists() else 0
            child = start(self.train("--set", "trainer.total_steps=100000"), self.at)
            # two of its own steps; the log of a run before stays
            while child.poll() is None and not (log.exists() and log.read_text()[before:].count("/100000 ") >= 2): time.sleep(0.1)
            rank = next((p for p in ours() if b"OMPI_COMM_WORLD_RANK=1" in environment_of(p)), None)
            if rank is None: raise AssertionError(f"the run has ended: {child.communicate()}")
            os.kill(rank, end) if end == signal.SIGKILL else child.send_signal(end)
            out, err = child.communicate(timeout=LOOP)
            assert child.returncode == code, (child.returncode, out[-500:], err)
            assert len(err.strip().splitlines()) == 1, err
            assert ("rank 1 (pid " if code == 5 else "interrupted: saving") in err, err
            nobody_left()
        last = self.steps()[-1]
        Ran(*self.train("--set", f"trainer.total_steps={last + 1}"), cwd=self.at).expect(0, lines=0)
        assert self.steps()[-2:] == [last, last + 1], self.steps()

    def sim(self, devices=2):
        """MPI's memory is not the sanitizer's, under which the simulator runs."""
        return {"ASAN_OPTIONS": "detect_leaks=0", "DAPO_SIM_DEVICES": str(devices), "XDG_CACHE_HOME": str(self.at)}

    def gpu_run(self, name, dp, tp=1, transport="nccl", overlap="true"):
        """Two steps on simulated GPUs in folder `name`: its metrics, without those of time, of exchanges and of how groups are cut, its responses, and
        the bytes of its weights."""
        devices = 1 if transport == "host" else 2 if dp == "auto" else dp * tp
        ran = Ran(SIM_TRAIN, "gpu.cfg", "--set", f"parallel.dp={dp}", "--set", f"parallel.tp={tp}", "--set", f"trainer.run_dir={name}",
                  "--set", f"parallel.transport={transport}", "--set", f"parallel.overlap={overlap}", cwd=self.at, limit=500, **self.sim(devices))
        ran.expect(0, lines=0)
        run = self.at / name
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        metrics = [{k: v for k, v in line.items() if not re.search("seconds|_per_s|flops|alarms|update/rows|exchange_", k)} for line in lines]
        responses = [[json.loads(line)["ids"] for line in (run / f"rollouts/step_{n}.jsonl").read_text().splitlines()] for n in (1, 2)]
        return metrics, responses, (run / "model/model.safetensors").read_bytes()

    def test_gpus_one_rank_two_and_a_grid_of_four(self):
        self.prepare_gpu()
        one, two, again, grid = self.gpu_run("one", 1), self.gpu_run("two", 2), self.gpu_run("again", "auto", overlap="false"), self.gpu_run("grid", 2, 2)
        assert one[1] == two[1], (one[1], two[1])
        assert two == again, "another run of the same two ranks, without overlap, has other numbers"
        assert one[1] == grid[1], (one[1], grid[1])
        assert one[0][-1]["update/grad_norm"] > 0
        for a, b in [*zip(one[0], two[0]), *zip(one[0], grid[0])]:
            assert a.keys() == b.keys()
            for k, v in a.items():
                assert v == b[k] or isinstance(v, float) and abs(v - b[k]) <= 1e-4 * max(abs(v), 1e-3), (k, v, b[k])

    def test_gpus_that_ranks_share(self):
        self.prepare_gpu()
        grid, shared = self.gpu_run("grid", 2, 2), self.gpu_run("shared", 2, 2, "host")
        assert grid == shared, "the same grid has other numbers through the host's memory"

    def test_gpus_that_are_too_few_or_taken_twice(self):
        self.prepare_gpu()
        Ran(SIM_TRAIN, "gpu.cfg", cwd=self.at, **self.sim(devices=1)).expect(
            2, r"^dapo_train: rank 1 on \S+ has no GPU left: 2 ranks see 1 there; start at most one rank a GPU")
        mpirun("-n", 2, "sh", "-c", f"CUDA_VISIBLE_DEVICES=1,$OMPI_COMM_WORLD_RANK; export CUDA_VISIBLE_DEVICES; cd {self.at} && "
               f"exec {SIM_TRAIN} gpu.cfg", **self.sim()).expect(2, r"^dapo_train: rank 1 on \S+ would run on GPU-\S+2, as rank 0 does; give each")

    def test_gpus_of_a_rank_that_is_killed(self):
        self.prepare_gpu()
        child = subprocess.Popen([str(SIM_TRAIN), "gpu.cfg", "--set", "trainer.total_steps=1000"], cwd=self.at, env=environment(**self.sim()),
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        log = self.at / "run/rank_1.log"
        begin = time.time()
        while time.time() < begin + 200 and not (log.exists() and "step 1/1000" in log.read_text()): time.sleep(0.1)
        rank = next(p for p in ours() if b"OMPI_COMM_WORLD_RANK=1" in pathlib.Path(f"/proc/{p}/environ").read_bytes().split(b"\0"))
        os.kill(rank, signal.SIGKILL)
        killed = time.time()
        out, err = child.communicate(timeout=100)
        assert child.returncode == 5 and len(err.strip().splitlines()) == 1 and "rank 1 (pid " in err, (child.returncode, out[-500:], err)
        assert time.time() - killed < DEAD_S + BUSY_S, time.time() - killed
        nobody_left()


if __name__ == "__main__":
    sys.exit(main(Tests))
