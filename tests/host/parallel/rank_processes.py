"""Programs of several ranks as processes, for tests: their start, what is left of them, and the tests' results."""
import os, pathlib, re, shutil, signal, subprocess, sys, tempfile, time, uuid

ROOT = pathlib.Path(__file__).resolve().parents[3]
PROGRAMS = pathlib.Path(os.environ.get("DAPO_PROGRAMS", ROOT / "build/release")).resolve()
RANKS, TRAIN, SIM_TRAIN = PROGRAMS / "ranks", PROGRAMS / "dapo_train", PROGRAMS / "sim/dapo_train"
MARK = "RANKS_TEST=" + uuid.uuid4().hex  # in the environment of all that this test starts
# A rank that died is noticed by its machine within 5 s, one that hangs within the limit (here HANG) and 5 s more.
HANG, DEAD_S, BUSY_S = "2", 5, float(os.environ.get("RANKS_TEST_SLACK", 30))  # BUSY_S: for a machine under other load
OPEN_MPI = {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "self,vader", "OMPI_MCA_mpi_yield_when_idle": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_orte_execute_quiet": "1"}
LAUNCHERS = (b"mpirun", b"prterun", b"prted")  # of Open MPI 4 and 5
LOOP = 200  # seconds of a loop that nothing ends


def environment(**more):
    name, value = MARK.split("=")
    return {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PMI", "SLURM_", "OMP_"))} | {name: value} | more


started = []  # processes that this test has started itself


def start(command, cwd=None, **env):
    child = subprocess.Popen([str(c) for c in command], cwd=cwd, env=environment(**env), stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    started.append(child.pid)
    return child


class Ran:
    def __init__(self, *command, cwd=None, limit=300, **env):
        self.began = time.time()
        child = start(command, cwd, **env)
        try: self.out, self.err = child.communicate(timeout=limit)
        finally: child.kill()
        self.code = child.returncode
        self.lines = re.split("^-{20,}$", self.err, maxsplit=1, flags=re.M)[0].splitlines()  # without mpirun's own words

    def expect(self, code, *parts, lines=1):
        """The exit code, and so many lines on standard error, which hold these parts."""
        assert self.code == code, f"exit code {self.code}, expected {code}: {self}"
        assert lines is None or len(self.lines) == lines, f"{len(self.lines)} lines on standard error, expected {lines}: {self}"
        for part in parts: assert re.search(part, self.err), f"no '{part}' in: {self}"
        return self

    def __str__(self):
        return f"out: {self.out[-500:]!r} err: {self.err[-1500:]!r}"


def about(pid, file):
    """A file of /proc/PID; empty once the process is gone."""
    try: return pathlib.Path(f"/proc/{pid}/{file}").read_bytes()
    except OSError: return b""


def environment_of(pid): return about(pid, "environ").split(b"\0")


def ours():
    """Processes that this test started and that still run."""
    return [int(f.name) for f in pathlib.Path("/proc").iterdir()
            if f.name.isdigit() and int(f.name) != os.getpid() and MARK.encode() in environment_of(f.name)]


def nobody_left(seconds=5 + BUSY_S):
    """What is left by mistake runs longer: loops for LOOP seconds, sleepers for 100."""
    end = time.time() + seconds
    while (left := ours()) and time.time() < end: time.sleep(0.05)
    assert not left, "left behind: " + ", ".join(f"{p}: " + about(p, "cmdline").replace(b"\0", b" ").decode() for p in left)
    # Of our own processes only: others may be running on this machine.
    pages = [page for pid in started for page in pathlib.Path("/dev/shm").glob(f"dapo-{os.geteuid()}-{pid}-*")]
    assert not pages, f"a page is left: {pages}"


def mpirun(*command, **env):
    return Ran("mpirun", "--oversubscribe", "--bind-to", "none", *command, **OPEN_MPI, **env)


def main(kind):
    """Runs the methods test_* of `kind`, each in a folder of its own: those whose names hold a word of the command line."""
    for program in (RANKS, TRAIN, PROGRAMS / "dapo"):
        if not program.exists(): sys.exit(f"{program} is not built; make test builds it")
    words = [w for w in sys.argv[1:] if not w.startswith("--")]
    tests = [name for name in dir(kind) if name.startswith("test_") and (not words or any(w in name for w in words))]
    on_gpus = [name for name in tests if "test_gpus" in name and not SIM_TRAIN.exists()]
    if on_gpus:
        print(f"skipped: ranks on GPUs: {SIM_TRAIN} is not built")
        tests = [name for name in tests if name not in on_gpus]
    why = "mpirun is not in PATH" if not shutil.which("mpirun") else ""
    if not why and "without MPI" in Ran(RANKS, 2, 60, "ops").err: why = "the programs are built without MPI"
    if why:
        print(f"skipped: ranks as processes: {why}\n[  PASSED  ] 0 tests.\n[  SKIPPED ] {len(tests)} tests.")
        return 0
    passed, failed = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for name in tests:
            begin = time.time()
            try:
                getattr(kind(pathlib.Path(folder)), name)()
                nobody_left()
                print(f"[       OK ] Ranks.{name[5:]} ({time.time() - begin:.1f} s)", flush=True)
                passed += 1
            except Exception as e:
                print(f"{type(e).__name__}: {e}\n[  FAILED  ] Ranks.{name[5:]} (0 ms)", flush=True)
                failed += 1
                for pid in ours():
                    try: os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError: pass
    print(f"[  PASSED  ] {passed} tests.")
    if on_gpus: print(f"[  SKIPPED ] {len(on_gpus)} tests.")
    return 1 if failed else 0
