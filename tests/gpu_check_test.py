#!/usr/bin/env python3
"""bench/gpu_check.py: all of its logic in the simulator, and programs that fail, crash, hang or are missing.

GPU_CHECK_BIN: folders of the programs built with the simulator (make run-tests sets it). Prints its results as GoogleTest does.
"""
import json, os, pathlib, re, subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TESTS = ["AStage.One", "AStage.Two", "AStage.Three"]
FAKE = """#!/usr/bin/env python3
import os, sys, time
tests, bad, how = %r, "AStage.Two", %r
chosen = sys.argv[1].removeprefix("--gtest_filter=") if len(sys.argv) > 1 else ""
if "--gtest_list_tests" in sys.argv:
    print("AStage.\\n  One\\n  Two\\n  Three")
    sys.exit()
if chosen.startswith("CudaDevice"):
    print("cuda: fake (sm_90)")
    sys.exit()
for t in [t for t in tests if t in chosen.split(":")]:
    print("[ RUN      ] " + t, flush=True)
    if t == bad and how == "hang": time.sleep(1000)
    if t == bad and how == "crash": os.abort()
    fails = t == bad and how != "well"
    print("there.cpp:7: Failure\\nExpected: this\\n[  FAILED  ] " + t + " (1 ms)" if fails else "[       OK ] " + t + " (1 ms)")
    if fails and "--gtest_fail_fast" in sys.argv: break
sys.exit(how != "well" and bad in chosen.split(":"))
"""


BENCH = """#!/usr/bin/env python3
import json, re, sys
given = dict(x[2:].split("=", 1) for x in sys.argv[1:] if x.startswith("--benchmark"))
rows, dead = [], False
for n in ("one", "two", "three", "four"):
    n += "/toy/4x8/bf16/iterations:3/manual_time"
    if not re.search(given.get("benchmark_filter", "swiglu|rmsnorm").replace("swiglu|rmsnorm", ""), n): continue
    dead |= n.startswith("two")
    rows.append({"name": n, "run_name": n, **({"error_occurred": True, "error_message": "lost"} if dead else {"real_time": 1})})
open(given["benchmark_out"], "w").write(json.dumps({"benchmarks": rows}))
sys.exit(70 if dead else 0)
"""


def check(out, *argv, bin_=None):
    start = time.monotonic()
    p = subprocess.run([sys.executable, ROOT / "bench/gpu_check.py", "--device", "sim", "--out", out, "--configs", ROOT / "configs",
                        "--bin", bin_ or os.environ["GPU_CHECK_BIN"], *argv], capture_output=True, text=True)
    result = json.loads((pathlib.Path(out) / "gpu-check.json").read_text())
    return p.returncode, {s["name"]: s for s in result["stages"]}, time.monotonic() - start, p.stdout + p.stderr


def fakes(out, how):
    folder = pathlib.Path(out) / "bin"
    folder.mkdir()
    for name, text in {"test_cuda": FAKE % (TESTS, how), "dapo": "#!/bin/sh\n"}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def every_stage_runs_in_the_simulator(out):
    code, stages, _, said = check(out)
    assert code == 0, said
    for name in ("machine", "trainer", "equalities", "golden", "ops", "demo", "step", "bench"):
        assert stages[name]["status"] == "passed", said
    assert stages["ops"]["figures"]["passed"] > 50 and stages["demo"]["figures"]["cuda-f32"]["steps"] == 1, stages
    assert stages["bench"]["figures"]["benchmarks"], stages["bench"]
    assert "| ops | passed |" in (pathlib.Path(out) / "report.md").read_text()
    results = pathlib.Path(out) / "results"
    subprocess.run([sys.executable, ROOT / "bench/gpu_check.py", "--report", pathlib.Path(out) / "gpu-check.json", "--results", results],
                   check=True, capture_output=True)
    assert re.fullmatch(r"h100-80gb-hbm3-simulated-\d{4}-\d\d-\d\d.md", next(results.iterdir()).name)


def after_a_failure_another_process_goes_on(out):
    code, stages, _, said = check(out, "ops", bin_=fakes(out, "fail"))
    assert code == 1 and stages["ops"]["failed"] == ["AStage.Two"] and stages["ops"]["figures"]["passed"] == 2, said
    assert "Expected: this" in stages["ops"]["figures"]["first_reasons"]["AStage.Two"], stages


def a_crash_is_named_and_the_rest_is_run(out):
    code, stages, _, said = check(out, "equalities", "ops", bin_=fakes(out, "crash"))
    assert code == 1 and stages["ops"]["failed"] == ["AStage.Two"] and stages["equalities"]["status"] == "failed", said
    assert stages["ops"]["figures"]["passed"] == 2, said


def time_is_limited(out):
    code, stages, seconds, said = check(out, "ops", "trainer", "--budget", "3", bin_=fakes(out, "hang"))
    assert code == 1 and seconds < 200 and "AStage.Two" in stages["trainer"]["failed"], said


def benchmarks_go_on_behind_a_failed_case(out):
    folder = fakes(out, "well")
    (folder / "bench_ops").write_text(BENCH)
    (folder / "bench_ops").chmod(0o755)
    code, stages, _, said = check(out, "bench", bin_=folder)
    assert code == 1 and [x.split("/")[0] for x in stages["bench"]["failed"]] == ["two"], said
    assert [x["name"].split("/")[0] for x in stages["bench"]["figures"]["benchmarks"]] == ["one", "two", "three", "four"], stages
    assert sum("error_message" in x for x in stages["bench"]["figures"]["benchmarks"]) == 1, stages


def an_absent_program_skips_its_stage(out):
    code, stages, _, said = check(out, "trainer", "bench", bin_=fakes(out, "well"))
    assert code == 0 and stages["trainer"]["status"] == "passed" and stages["bench"]["status"] == "skipped", said
    assert "bench_ops is not in" in stages["bench"]["note"], said


STEP = """#!/usr/bin/env python3
import json, sys
what = sys.argv[sys.argv.index("--what") + 1]
print(json.dumps({"train": [{"length": 32, "tokens_per_s": 300.0}], "products": "products: ours"} if what == "train"
                 else {"decode": [{"batch": 2, "tokens_per_s": 50.0}]}))
"""
PEER = """#!/bin/sh
case "$*" in
  *--compile*) echo "no compiler here"; exit 1 ;;
  *generate*) echo '{"tokens_per_s": 5.0, "peak_gb": 0, "torch": "9"}' ;;
  *train*) echo '{"tokens_per_s": 100.0, "peak_gb": 0, "torch": "9"}' ;;
esac
"""


def ratios_to_pytorch(out):
    folder = fakes(out, "well")
    for name, text in {"bench_step": STEP, "python_with_torch": PEER}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    os.environ["GPU_CHECK_PYTHON"] = str(folder / "python_with_torch")
    code, stages, _, said = check(out, "peers", bin_=folder)
    del os.environ["GPU_CHECK_PYTHON"]
    rows = {(x["work"], x["peer"]): x for x in stages["peers"]["figures"]["json"]}
    assert code == 0 and len(rows) == 3, said
    assert rows["training, 32 tokens per row", "PyTorch, eager"]["ratio"] == 3, rows
    assert rows["training, 32 tokens per row", "PyTorch, torch.compile"]["note"] == "no compiler here", rows
    assert rows["decode of 2 sequences at 16 tokens", "transformers generate"]["ratio"] == 10, rows
    assert "| training, 32 tokens per row | 300 | PyTorch, eager | 100 | 3.00 |" in (pathlib.Path(out) / "report.md").read_text()


passed = 0
failed = []
for test in (ratios_to_pytorch, after_a_failure_another_process_goes_on, a_crash_is_named_and_the_rest_is_run, time_is_limited,
             benchmarks_go_on_behind_a_failed_case, an_absent_program_skips_its_stage, every_stage_runs_in_the_simulator):
    with tempfile.TemporaryDirectory() as out:
        try:
            test(out)
            passed += 1
        except Exception as e:
            failed.append(test.__name__)
            print(f"{type(e).__name__}: {e}\n[  FAILED  ] {test.__name__} (0 ms)")
print(f"[  PASSED  ] {passed} tests.")
sys.exit(1 if failed else 0)
