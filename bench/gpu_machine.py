"""Shared by gpu-check's stages: the programs, their environment and time, the log, the GPU's clocks."""
import glob, json, os, pathlib, re, shutil, signal, subprocess, sys, tarfile, tempfile, time

HERE = pathlib.Path(__file__).resolve().parent


class Skip(Exception):
    """A stage cannot run on this machine; the message is the reason."""


class Run:
    """Shared by the stages: programs, environment, log, time."""

    def __init__(self, a):
        self.sim = a.device == "sim"
        self.out = pathlib.Path(a.out).resolve()
        self.out.mkdir(parents=True, exist_ok=True)
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="gpu-check-"))
        home = unpacked(self.out)
        self.bin = [pathlib.Path(p).resolve() for p in a.bin.split(":")] if a.bin else [home / "bin"]
        self.configs = pathlib.Path(a.configs).resolve()
        self.log = open(self.out / "gpu-check.log", "w", buffering=1)
        self.end = time.monotonic() + a.budget
        self.stage_end = self.end
        self.cores = os.cpu_count() or 1
        self.env = dict(os.environ)
        self.libraries = cuda_libraries()
        self.env["LD_LIBRARY_PATH"] = ":".join(self.libraries + [p for p in [os.environ.get("LD_LIBRARY_PATH")] if p])
        self.env["GOMP_SPINCOUNT"] = "1000"
        self.env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as nvidia-smi counts
        if "DAPO_TEST_DATA" not in self.env:
            data = HERE / "data" if (HERE / "data").exists() else HERE.parent.parent / "shared/data"
            self.env["DAPO_TEST_DATA"] = str(data)
        goldens = HERE / "goldens" if (HERE / "goldens").exists() else HERE.parent / "tests/goldens"
        self.env.setdefault("DAPO_TEST_GOLDENS", str(goldens.resolve()))
        self.fallback = home / "lib/fallback"

    def say(self, text):
        self.log.write(text + "\n")
        print(text, flush=True)

    def program(self, name):
        for folder in self.bin:
            if (folder / name).exists():
                return str(folder / name)
        raise Skip(f"{name} is not in {':'.join(map(str, self.bin))}")

    def left(self):
        return min(self.end, self.stage_end) - time.monotonic()

    def call(self, argv, limit=1e9, env=None):
        """Runs a program within the stage's time; returns (exit code or None on timeout, output, seconds)."""
        argv = [str(x) for x in argv]
        limit = min(limit, self.left())
        self.log.write("$ " + " ".join(argv) + "\n")
        if limit <= 0:
            return None, "", 0.0
        start = time.monotonic()
        p = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**self.env, **(env or {})},
                             cwd=self.work, start_new_session=True, stdin=subprocess.DEVNULL)
        try:
            text, code = p.communicate(timeout=limit)[0], p.returncode
        except subprocess.TimeoutExpired:
            os.killpg(p.pid, signal.SIGKILL)
            text, code = p.communicate()[0], None
        seconds = time.monotonic() - start
        text = text.decode(errors="replace")
        self.log.write(f"{text}[exit {code}, {seconds:.1f} s]\n")
        return code, text, seconds


def cuda_libraries():
    """Folders of CUDA's libraries in Python environments and toolkits, those of this Python first."""
    roots = [p for p in sys.path if p.endswith("-packages")]
    roots += glob.glob("/opt/*/lib/python3*/site-packages") + glob.glob("/opt/*/.venv/lib/python3*/site-packages")
    roots += glob.glob("/usr/local/lib/python3*/dist-packages") + glob.glob("/usr/lib/python3*/dist-packages")
    found = [d for r in roots for d in sorted(glob.glob(r + "/nvidia/*/lib"))]
    found += glob.glob("/usr/local/cuda/lib64") + sorted(glob.glob("/usr/local/cuda-*/lib64"), reverse=True)
    return [d for i, d in enumerate(found) if d not in found[:i] and glob.glob(d + "/*.so*")]


def unpacked(out):
    """The folder with bin/ and lib/: this file's, where they are unpacked once, or `out` if that is read-only."""
    archive = HERE / "programs.tar.xz"
    if not archive.exists():
        return HERE
    home = HERE if os.access(HERE, os.W_OK) else pathlib.Path(out).resolve()
    done = home / "bin/.unpacked"
    if not done.exists() or done.stat().st_mtime < archive.stat().st_mtime:
        home.mkdir(parents=True, exist_ok=True)
        try:
            import lzma  # noqa: F401: tarfile needs it
            with tarfile.open(archive) as t:
                t.extractall(home)
        except ImportError:
            subprocess.run(["tar", "-C", home, "-xJf", archive], check=True)
        done.touch()
    return home


class Clocks:
    """The GPU's clocks, power and temperature while a program runs, to distinguish a slow kernel from a slow card."""
    QUERY = ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu")

    def __init__(self, r):
        self.process = None
        if not r.sim and shutil.which("nvidia-smi"):
            card = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"
            self.process = subprocess.Popen(["nvidia-smi", "-i", card, "--query-gpu=" + ",".join(self.QUERY), "--format=csv,noheader,nounits",
                                             "-lms", "500"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def lines(self):
        if self.process is None:
            return []
        self.process.terminate()
        rows = [[float(x) for x in line.split(",")] for line in self.process.communicate()[0].splitlines()
                if re.fullmatch(r"[\d., ]+", line) and line.count(",") == len(self.QUERY) - 1]
        middle = lambda v: sorted(v)[len(v) // 2]
        return ["", "; ".join(f"{name} {min(v):g} to {max(v):g}, median {middle(v):g}"
                              for name, v in zip(self.QUERY, zip(*rows)))] if rows else []


def benchmark(r, program, *argv):
    """Runs a benchmark on the GPU; returns its tables, its JSON lines, and the clocks during the run."""
    table = r.work / f"{program}.md"
    table.unlink(missing_ok=True)
    path = r.program(program)
    clocks = Clocks(r)
    code, text, _ = r.call([path, "--device", "cuda", "--markdown", table, *argv])
    said = text.strip().splitlines() or ["time ran out"]
    f = {"lines": (table.read_text().splitlines() if table.exists() else said[-40:]) + clocks.lines(),
         "failed": [] if code == 0 else [f"{program}: exit {code}: {said[-1]}"]}
    figures = [json.loads(x) for x in said if x.startswith("{") and x.endswith("}")]
    return {**f, "json": figures} if figures else f
