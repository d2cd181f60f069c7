#!/usr/bin/env python3
"""Predicts a DAPO step on 1 to 1,024 GPUs by simulation (bench/scaling_model.py): its seconds, and what grows first.

    python3 bench/scaling.py                              # tables, as text
    python3 bench/scaling.py --into docs/scaling.md       # ... and the page's, with its pictures
    python3 bench/scaling.py --fits                       # the fits to measured times, with their errors, and a whole step
    python3 bench/scaling.py --models 7B --gpus 8,16 --grids    # every grid that fits, not only the fastest

Tensor parallelism and several GPUs are simulated, not run: docs/scaling.md says which inputs were measured, cited or assumed.
"""
import argparse, collections, dataclasses, math, pathlib, statistics

from curves import panel, picture
from scaling_model import TERMS, Exchange, Group, errors, least_squares, log_normal_groups, step

# ---- measured: one H100, bench/results/h100-2026-11-26.md
DECODE = {"0.5B": {1: 752, 64: 33.1e3, 256: 90.1e3}, "1.5B": {1: 392, 64: 17.6e3, 256: 45.0e3}, "3B": {1: 250, 64: 11.3e3, 256: 30.0e3},
          "7B": {1: 158, 64: 7.1e3, 256: 19.2e3}}  # tokens/s by sequences, each of 1,024 tokens
TRAINING = {"0.5B": {1024: 128.1e3, 4096: 100.2e3}, "1.5B": {1024: 51.6e3, 4096: 42.1e3}, "3B": {1024: 25.2e3}}  # tokens/s by length, AdamW included
BENCH_PACK = 16384      # tokens of those packs
MEMORY_RATE = 3.064e12  # bytes/s, best of its kernels
ADAMW_SHARE = 0.91      # of it; 36 bytes a parameter
PRODUCT_RATE = 693e12   # FLOP/s of a product of 4,096 rows, cuBLASLt, 7B gate/up; the ceiling of a decode step's products
HOST = 17e-3            # a whole step of the demo on that card: an upper bound of what a step costs besides its tokens
# ---- cited
NVLINK = 450e9          # bytes/s a GPU each way: NVIDIA H100 data sheet, 900 GB/s both ways
NETWORK = 50e9          # bytes/s a GPU: DGX H100, one 400 Gbit/s adapter each
SUM_SECONDS, SUM_RATE = 6e-6, 375e9  # one-stage sums of 0.5 to 4 MB over four GPUs: 10, 14, 23, 38 us (vLLM pull request 24532)
HOST_LINK = 55e9        # bytes/s each way, PCIe 5 x16 in use
# ---- assumed
REACHED = 0.8           # share of NVLink and network that large messages reach
COLLECTIVE = 15e-6      # seconds to start a large collective inside a machine
MESSAGE = 1.5e-6        # seconds a message to one of many peers
HOST_NETWORK = 12.5e9   # bytes/s of a machine for its host's messages
MACHINE = 8             # GPUs that NVLink joins
USABLE, CONTEXT = 80e9 - 4e9, 1.5e9  # bytes a GPU; CUDA's context and NCCL
BATCH = 512             # rollout.max_num_seqs
PROMPT, MEAN, SIGMA, CAP, WITHIN, SAMPLES = 256, 6000, 0.8, 20480, 0.5, 16
JOBS = {"64 x 16": (64, 4), "512 x 16": (512, 16)}  # prompts, updates
GPUS = [2 ** i for i in range(11)]


@dataclasses.dataclass(frozen=True)
class Shape:
    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool

    @property
    def body(self):
        """Weights of all layers' products."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return self.layers * (self.hidden * (2 * q + 2 * kv) + 3 * self.hidden * self.ffn)

    @property
    def head(self):
        return self.hidden * self.vocab

    @property
    def parameters(self):
        return self.body + self.head * (1 if self.tied else 2)

    @property
    def kv_bytes(self):
        return 2 * self.layers * self.kv_heads * self.head_dim * 2

    @property
    def pair_flops(self):
        return 4 * self.layers * self.heads * self.head_dim


MODELS = {"0.5B": Shape(896, 4864, 24, 14, 2, 64, 151936, True), "1.5B": Shape(1536, 8960, 28, 12, 2, 128, 151936, True),
          "3B": Shape(2048, 11008, 36, 16, 2, 128, 151936, True), "7B": Shape(3584, 18944, 28, 28, 4, 128, 152064, False),
          "32B": Shape(5120, 27648, 64, 40, 8, 128, 152064, False), "72B": Shape(8192, 29568, 80, 64, 8, 128, 152064, False)}


def decode_rows():
    names, rows, seconds = [], [], []
    for name, by_batch in DECODE.items():
        s = MODELS[name]
        for batch, rate in by_batch.items():
            names.append(f"{name} x {batch}")
            rows.append((s.layers, 2 * (s.body + s.head), batch * 1024 * s.kv_bytes))
            seconds.append(batch / rate)
    return names, rows, seconds


def training_rows():
    names, rows, seconds = [], [], []
    for name, by_length in TRAINING.items():
        s = MODELS[name]
        for length, rate in by_length.items():
            names.append(f"{name} at {length:,}")
            products = 6 * (s.body + s.head)
            rows.append((products if s.hidden < 1024 else 0, 0 if s.hidden < 1024 else products, 3 * s.pair_flops * (length + 1) / 2))
            seconds.append(1 / rate - adamw_seconds(s.parameters) / BENCH_PACK)
    return names, rows, seconds


def adamw_seconds(parameters):
    return 36 * parameters / (ADAMW_SHARE * MEMORY_RATE)


LAYER, PER_WEIGHT_BYTE, PER_KV_BYTE = least_squares(*decode_rows()[1:])
PER_FLOP_NARROW, PER_FLOP, PER_PAIR_FLOP = least_squares(*training_rows()[1:])


class Grid:
    """Costs of one of `data` ranks (scaling_model), each of `tensor` GPUs with sequence parallelism."""
    page, run, prefill_tokens, slots, batch = 64, 16, 4096, None, BATCH

    def __init__(self, shape, tensor, data, longest=PROMPT + CAP, nvlink=NVLINK, network=NETWORK):
        self.s, self.tensor, self.data, self.nvlink, self.network = shape, tensor, data, nvlink, network
        self.f = (tensor - 1) / tensor
        self.pack_tokens = max(16384, longest)
        s, P = shape, shape.parameters / tensor
        layer = self.pack_tokens * (8 * s.hidden + 2 * ((2 * s.heads + 2 * s.kv_heads) * s.head_dim + 3 * s.ffn + 2 * s.hidden)) / tensor
        gathered = 2 * self.pack_tokens * s.hidden * 2 if tensor > 1 else 0
        head = 4096 * s.vocab / tensor * 6
        inputs = self.pack_tokens * 4 * s.hidden * s.layers / tensor
        # The first that fits: all activations kept, recomputed, recomputed with the moments in the host's memory.
        for self.recompute, self.offload in ((False, False), (True, False), (True, True)):
            state = P * (6 + (2 if self.offload else 10) / data)
            activations = (inputs + layer if self.recompute else layer * s.layers) + gathered
            kv = max(1, tensor / s.kv_heads) / tensor * s.kv_bytes
            self.memory = state + CONTEXT + head + max(activations, longest * kv)
            if self.memory <= USABLE:
                break
        self.fits = self.memory <= USABLE
        self.kv_tokens = (USABLE - CONTEXT - head - state) / kv
        self.context = kv * PER_KV_BYTE
        self.backward = 3 / 4 if self.recompute else 2 / 3
        self.per_flop = PER_FLOP_NARROW if s.hidden < 1024 else PER_FLOP

    def sum_seconds(self, rows):
        """A sum over the tensor ranks in a decode step: all read all parts, or each sums its rows and sends them on."""
        b, T = rows * self.s.hidden * 2, self.tensor
        rate = SUM_RATE * self.nvlink / NVLINK
        return min(SUM_SECONDS + (T - 1) * b / rate, 2 * SUM_SECONDS + 2 * self.f * b / rate)

    def decode(self, rows):
        s, T = self.s, self.tensor
        weights = (s.body + s.head) / T
        own = s.layers * LAYER + max(2 * weights * PER_WEIGHT_BYTE, 2 * rows * weights / PRODUCT_RATE)
        if T == 1:
            return own, 0.0
        logits = self.f * rows * s.vocab * 4 / T / (REACHED * self.nvlink) + 2 * COLLECTIVE
        return own, 2 * s.layers * self.sum_seconds(rows) + logits

    def crossings(self, count, tokens):
        """`count` times a layer the rows of `tokens` travel between tensor ranks."""
        if self.tensor == 1:
            return 0.0
        return count * self.s.layers * (COLLECTIVE + self.f * tokens * self.s.hidden * 2 / (REACHED * self.nvlink))

    def prefill(self, tokens, pairs):
        s, T = self.s, self.tensor
        own = (2 * tokens * s.body * self.per_flop + s.pair_flops * pairs * PER_PAIR_FLOP) / T + s.layers * LAYER + 2 * s.body / T * PER_WEIGHT_BYTE
        return own, self.crossings(4, tokens)

    def pack(self, tokens, pairs, heads):
        s, passes = self.s, 4 if self.recompute else 3
        products = passes * 2 * tokens * s.body + 3 * 2 * heads * s.head
        own = (products * self.per_flop + passes * s.pair_flops * pairs * PER_PAIR_FLOP) / self.tensor
        return own, self.crossings(11 if self.recompute else 10, tokens)

    def wire(self, bytes_, ranks):
        """`bytes_` from each rank, divided among all others: those in its machine by NVLink, the others by the network, both at once."""
        near = min(ranks, max(1, MACHINE // self.tensor))
        inside, outside = bytes_ * (near - 1) / ranks / self.nvlink, bytes_ * (ranks - near) / ranks / self.network
        return COLLECTIVE + (ranks - 1) * MESSAGE + max(inside, outside) / REACHED

    def exchange(self, ranks):
        P, buckets = self.s.parameters / self.tensor, self.s.layers + 1
        adamw = adamw_seconds(P / ranks) + (2 * COLLECTIVE if ranks * self.tensor > 1 else 0)
        if self.offload:
            adamw += 8 * P / ranks / HOST_LINK
        if ranks == 1:
            return Exchange(buckets, 0.0, 0.0, adamw)
        return Exchange(buckets, self.wire(4 * P / buckets, ranks), self.wire(2 * P / buckets, ranks), adamw)

    def host(self, responses, tokens, ranks):
        gpus = ranks * self.tensor
        return HOST + (8 * tokens * min(MACHINE, gpus) / HOST_NETWORK if gpus > 1 else 0)


def grids(name, gpus, **links):
    """Those that fit."""
    all_ = (Grid(MODELS[name], t, gpus // t, **links) for t in (1, 2, 4, 8) if t <= gpus)
    return [g for g in all_ if g.fits]


def groups_of(prompts, seed, within=WITHIN, sigma=SIGMA):
    return log_normal_groups(prompts, SAMPLES, MEAN, sigma, CAP, within, PROMPT, seed)


def predict(grid, job, seeds, **lengths):
    """Mean seconds by term over the seeds."""
    prompts, updates = JOBS[job]
    out = collections.Counter()
    for seed in seeds:
        groups = groups_of(prompts, seed, **lengths)
        for term, seconds in step([groups], groups, updates, grid.data, grid).items():
            out[term] += seconds / len(seeds)
    return out


ROLLOUT = ("full batches", "thin batches", "waiting in rollout", "prefill")
LONG_TAIL = ("thin batches", "waiting in rollout")
REASONS = {"long tail": LONG_TAIL, "too few responses in a mini-batch": ("waiting in update",), "TP sums": ("TP sums",),
           "gradients, weights": ("gradients, weights",), "AdamW": ("AdamW",), "host": ("host",)}


def curve(name, job, gpus, seeds, links={}, **lengths):
    """The fastest grid of each number of GPUs: [(gpus, grid, seconds by term)]."""
    out = []
    for n in gpus:
        tried = [(predict(g, job, seeds, **lengths), g) for g in grids(name, n, **links)]
        if tried:
            seconds, grid = min(tried, key=lambda t: sum(t[0].values()))
            out.append((n, grid, seconds))
    return out


def best(points):
    """The number of GPUs with the highest speed a GPU. Fewer leave too little memory for keys and values."""
    return min(points, key=lambda p: p[0] * sum(p[2].values()))


def efficiency(points):
    """Speed a GPU, % of the best."""
    n, _, seconds = best(points)
    most = n * sum(seconds.values())
    return {n: 100 * most / (n * sum(seconds.values())) for n, _, seconds in points}


def breaks(points, share=0.1):
    """Reasons in the order in which their GPU seconds have grown by `share` of the best point's whole step: [(reason, gpus)]."""
    base = best(points)
    whole, at = base[0] * sum(base[2].values()), lambda p, terms: p[0] * sum(p[2][t] for t in terms)
    found = {}
    for p in points:
        grown = {r: (at(p, terms) - at(base, terms)) / whole for r, terms in REASONS.items()}
        for r in sorted(grown, key=grown.get, reverse=True):
            if p[0] > base[0] and grown[r] > share:
                found.setdefault(r, p[0])
    return list(found.items())


def table(name, job, points):
    head = "| GPUs | TP x DP | step, s | rollout + update | speed a GPU, % | long tail | waiting in update | TP sums | gradients, weights | host |"
    lines = [head, "|" + "---:|" * 10]
    eff = efficiency(points)
    for n, grid, s in points:
        total = sum(s.values())
        part = lambda *terms: f"{100 * max(0.0, sum(s[t] for t in terms)) / total:.0f} %"
        rollout = sum(s[t] for t in ROLLOUT)
        mark = " *" if grid.offload else ""
        lines.append(f"| {n:,} | {grid.tensor} x {grid.data}{mark} | {total:,.0f} | {rollout:,.0f} + {total - rollout:,.0f} | {eff[n]:.0f} | " + " | ".join(
            [part(*LONG_TAIL), part("waiting in update"), part("TP sums"), part("gradients, weights"), part("host")]) + " |")
    order = ", ".join(f"{r} from {n:,} GPUs" for r, n in breaks(points)) or "nothing"
    return f"**{name}, {job} responses.** What grows by a tenth of a step: {order}.\n\n" + "\n".join(lines) + "\n"


def into(page, name, text):
    """Replaces what lies between <!-- name --> and <!-- /name -->."""
    path = pathlib.Path(page)
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    old = path.read_text()
    if old.count(begin) != 1 or old.count(end) != 1:
        raise SystemExit(f"{page}: needs one {begin.strip()} and one {end}")
    path.write_text(old[:old.index(begin) + len(begin)] + text.strip() + "\n" + old[old.index(end):])


WHAT_IF = {"as above": {}, "every response 6,000 tokens": {"sigma": 0.0}, "lengths spread half as much (sigma 0.4)": {"sigma": 0.4},
           "lengths independent inside a group": {"within": 1.0}, "NVLink half as fast": {"links": {"nvlink": NVLINK / 2}},
           "network a quarter as fast": {"links": {"network": NETWORK / 4}}, "network a sixteenth": {"links": {"network": NETWORK / 16}}}


def what_if(models, seeds, gpus=256, job="512 x 16"):
    lines = [f"| {gpus} GPUs, {job} responses | " + " | ".join(f"{m}: step, s | long tail | TP sums | gradients, weights" for m in models) + " |",
             "|---|" + "---:|" * 4 * len(models)]
    for what, changes in WHAT_IF.items():
        cells = []
        for m in models:
            s = curve(m, job, [gpus], seeds, **changes)[0][2]
            cells += [f"{sum(s.values()):.0f}"] + [f"{sum(s[t] for t in REASONS[r]):.0f}" for r in ("long tail", "TP sums", "gradients, weights")]
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def fits_text():
    lines = []
    for what, (names, rows, seconds), c, units in (
            ("decode", decode_rows(), (LAYER, PER_WEIGHT_BYTE, PER_KV_BYTE),
             f"{LAYER * 1e6:.1f} us a layer, weights at {1e-12 / PER_WEIGHT_BYTE:.2f} TB/s, keys and values at {1e-12 / PER_KV_BYTE:.2f} TB/s"),
            ("training", training_rows(), (PER_FLOP_NARROW, PER_FLOP, PER_PAIR_FLOP),
             f"products {1e-12 / PER_FLOP_NARROW:.0f} TFLOP/s below 1,024 columns, {1e-12 / PER_FLOP:.0f} above, attention {1e-12 / PER_PAIR_FLOP:.0f}")):
        e = errors(rows, seconds, c)
        lines.append(f"{what}: {units}; error mean {100 * statistics.mean(map(abs, e)):.1f} %, worst {100 * max(map(abs, e)):.1f} %: "
                     + ", ".join(f"{n} {100 * x:+.1f}" for n, x in zip(names, e)))
    rollout, rest = whole_step()
    lines.append(f"a step of 64 x 16 responses of 1,024 tokens after 256, 0.5B, one H100, which no fit has seen: predicted {rollout:.1f} + {rest:.1f} s, measured 9.2 + 9.7 s")
    return "\n".join(f"- {x}" for x in lines)


def whole_step():
    """Seconds of rollout and of the rest of bench_step's 64 x 16 responses, 256 + 1,024 tokens, 0.5B, on one GPU."""
    groups = [Group(256, [1024] * 16)] * 64
    s = step([groups], groups, 2, 1, Grid(MODELS["0.5B"], 1, 1, longest=256 + 1024))
    rollout = sum(s[t] for t in ROLLOUT)
    return rollout, sum(s.values()) - rollout


def draw(curves, folder):
    """scaling.svg: speed a GPU. scaling_terms.svg: what a step of 512 x 16 spends its time on."""
    speed = [panel(f"{job} responses a step", [{n: [v] for n, v in efficiency(curves[m, job]).items()} for m in MODELS if (m, job) in curves],
                   125, range(0, 126, 25), " %", "GPUs", log_x=4) for job in JOBS]
    (folder / "scaling.svg").write_text(picture(speed, [m for m in MODELS if (m, next(iter(JOBS))) in curves],
                                                "Speed a GPU over the number of GPUs, relative to the smallest grid"))
    shown = [*REASONS][:4]
    parts = [panel(f"{m}, 512 x 16 responses", [{n: [100 * sum(s[t] for t in REASONS[r]) / sum(s.values())] for n, _, s in curves[m, "512 x 16"]} for r in shown],
                   100, range(0, 101, 25), " %", "GPUs", log_x=4) for m in ("7B", "32B") if (m, "512 x 16") in curves]
    (folder / "scaling_terms.svg").write_text(picture(parts, shown, "Share of a step that is lost, by reason, over the number of GPUs"))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    comma = lambda kind: lambda text: [kind(x) for x in text.split(",")]
    ap.add_argument("--models", default=["0.5B", "7B", "32B", "72B"], type=comma(str), help=f"of {', '.join(MODELS)}")
    ap.add_argument("--gpus", default=GPUS, type=comma(int))
    ap.add_argument("--seeds", default=[1, 2, 3], type=comma(int), help="of the responses' lengths")
    ap.add_argument("--into", help="a page: its sections tables, what-if and fits are replaced, and its pictures written beside it")
    ap.add_argument("--grids", action="store_true", help="every grid that fits")
    ap.add_argument("--fits", action="store_true", help="how well the fits describe what was measured")
    a = ap.parse_args()
    for m in a.models:
        if m not in MODELS:
            ap.error(f"--models: {m} is not one of {', '.join(MODELS)}")
    if a.fits:
        return print(fits_text())
    if a.grids:
        for m in a.models:
            for job in JOBS:
                for n in a.gpus:
                    for g in grids(m, n):
                        s = predict(g, job, a.seeds)
                        print(f"{m} {job} {n:5} GPUs TP {g.tensor} x DP {g.data:<5}{' offload' if g.offload else ''}{' recompute' if g.recompute else ''} {sum(s.values()):8.1f} s  "
                              + "  ".join(f"{t} {s[t]:.1f}" for t in TERMS), flush=True)
        return
    curves = {(m, job): curve(m, job, a.gpus, a.seeds) for m in a.models for job in JOBS}
    text = "\n".join(table(m, job, points) for (m, job), points in curves.items())
    changed = what_if([m for m in ("7B", "32B") if m in a.models], a.seeds)
    print(text + "\n" + changed)
    if a.into:
        if missing := {"7B", "32B"} - set(a.models):
            ap.error(f"--into: the page shows {' and '.join(sorted(missing))} too")
        into(a.into, "tables", text)
        into(a.into, "what-if", changed)
        into(a.into, "fits", fits_text())
        draw(curves, pathlib.Path(a.into).parent)


if __name__ == "__main__":
    main()
