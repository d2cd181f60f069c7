"""gpu-check's stage `peers`: bench_step and gpu_peers.py at the same sizes, as one table of ratios."""
import glob, json, os, shutil, sys

from gpu_machine import HERE, Skip, benchmark


def ratios(r):
    """Each part runs separately and within its time, so that a failing peer does not affect the others."""
    python = python_with_torch(r)
    lengths, batches, context, new = ([32], [2], 16, 4) if r.sim else ([1024, 4096], [64, 256], 256, 32)
    comma = lambda v: ",".join(map(str, v))
    figures = {}
    for what in ("train", "decode"):
        part = benchmark(r, "bench_step", "--shape", "toy" if r.sim else "0.5b", "--what", what, "--no-peers", "--lengths", comma(lengths),
                         "--batches", comma(batches), "--contexts", context)
        if part["failed"]:
            return part
        figures.update({k: v for k, v in part["json"][-1].items() if k in ("train", "decode", "products") and v})
    rate = lambda what, key, value: next(x["tokens_per_s"] for x in figures[what] if x[key] == value)
    rows = [(f"training, {n} tokens per row", f"PyTorch, {how}", ["train", "--length", n, "--tokens", 64 if r.sim else 16384] + flag, rate("train", "length", n))
            for how, flag in (("eager", []), ("torch.compile", ["--compile"])) for n in lengths]
    rows[len(lengths):len(lengths)] = [(f"decode of {b} sequences at {context} tokens", "transformers generate",
                                        ["generate", "--batch", b, "--context", context, "--new", new], rate("decode", "batch", b)) for b in batches]
    lines = [figures.get("products", ""), "", "| work (0.5B, random weights, bf16) | ours, tokens/s | peer | its tokens/s | ours / its |", "|---|---:|---|---:|---:|"]
    table, said = [], {}
    for work, peer, argv, own in rows:
        small = ["--shape", "toy", "--device", "cpu"] if r.sim else []
        code, text, _ = r.call([python, HERE / "gpu_peers.py", *argv, *small], 100 if "--compile" in argv else 40)
        last = (text.strip().splitlines() or [""])[-1]
        its = json.loads(last)["tokens_per_s"] if code == 0 and last.startswith("{") else None
        why = "time ran out" if code is None else (last[-90:] if its is None else "")
        said.setdefault("torch", json.loads(last)["torch"] if its else None)
        table.append({"work": work, "peer": peer, "ours": own, "its": its, "ratio": own / its if its else None, "note": why})
        lines.append(f"| {work} | {own:.0f} | {peer} | {f'{its:.0f}' if its else why} | {f'{own / its:.2f}' if its else ''} |")
    return {"lines": lines, "json": table, "python": str(python), **said}


def python_with_torch(r):
    """$GPU_CHECK_PYTHON, or a Python on this machine whose PyTorch (outside the simulator) can use the GPU."""
    found = [os.environ.get("GPU_CHECK_PYTHON"), sys.executable, shutil.which("python3"), *sorted(glob.glob("/opt/*/bin/python3")), *sorted(glob.glob("/opt/*/.venv/bin/python3"))]
    test = "import torch" + ("" if r.sim else "; assert torch.cuda.is_available()")
    for p in [x for i, x in enumerate(found) if x and x not in found[:i]]:
        if r.call([p, "-c", test], 40)[0] == 0:
            return p
    raise Skip("no Python on this machine has PyTorch" + ("" if r.sim else " with a GPU"))
