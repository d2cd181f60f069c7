#!/usr/bin/env python3
"""Where a GPU's microseconds go, from what bench/timeline.cpp recorded: a table, and one replayed graph as a picture.

    timeline.py FILE [--svg OUT] [--graph K]      FILE: $DAPO_TIMELINE of the run; K: the Kth most replayed graph (1)

In a graph a kernel may begin before the one ahead has ended, and then waits for it: so beside each kernel's own duration
stands what it adds, from the end of all before it to its own end. The additions and the idle time sum to the graph's time.
"""
import argparse, collections, pathlib, re, statistics, sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
OTHER = "#d2d0c6"  # of kernels that the legend has no place for
Event = collections.namedtuple("Event", "start end graph name")


def read(path):
    with open(path) as f:
        rows = (line.rstrip("\n").split("\t") for line in f)
        return [Event(int(start), int(end), int(graph), name) for start, end, _, graph, _, _, name in rows]


def short(name):
    """A kernel's name without its arguments, namespaces and the words of the libraries' templates."""
    name = re.sub(r"\(.*", "", name.replace("(anonymous namespace)::", ""))
    name = re.sub(r"^void ", "", name).replace("dapo::cuda::", "").replace("dapo::bf16", "bf16")
    return name if len(name) <= 60 else name[:57] + "..."


def launches(events):
    """The replays of one graph: its rarest kernel ends each, or begins each."""
    count = collections.Counter(e.name for e in events)
    once = min(count.values())
    last = max((e for e in events if count[e.name] == once), key=lambda e: e.end).name
    out, now = [], []
    for e in events:
        now.append(e)
        if e.name == last:
            out.append(now)
            now = []
    size = statistics.mode(len(x) for x in out) if out else 0
    return [x for x in out if len(x) == size]


def walk(events):
    """Each event with the ns before it in which nothing ran, and the ns that it adds: from the end of all before it to its own."""
    at = events[0].start
    for e in events:
        yield e, max(0, e.start - at), max(0, e.end - max(at, e.start))
        at = max(at, e.end)


def table(replays):
    """Lines: kernel, calls, mean us, us added, share; then idle time inside."""
    calls, own, added, idle = collections.Counter(), collections.Counter(), collections.Counter(), 0
    for events in replays:
        for e, pause, adds in walk(events):
            name = short(e.name)
            idle += pause
            added[name] += adds
            calls[name] += 1
            own[name] += e.end - e.start
    n, total = len(replays), idle + added.total()
    yield "| kernel | calls | us each | us added | share |"
    yield "|---|---:|---:|---:|---:|"
    for name, t in added.most_common():
        yield f"| {name} | {calls[name] / n:g} | {own[name] / calls[name] / 1e3:.2f} | {t / n / 1e3:.1f} | {100 * t / total:.1f} % |"
    yield f"| nothing | | | {idle / n / 1e3:.1f} | {100 * idle / total:.1f} % |"
    yield f"| all of a replay ({n}) | | | {total / n / 1e3:.1f} | |"


def pauses(events):
    """One line: how long the GPU waited for the host before and after replays, without pauses over 5 ms (other phases)."""
    around, busy, in_graph = [], 0, False
    for e, pause, adds in walk(events):
        if in_graph != bool(e.graph):
            around.append(pause)
        in_graph = bool(e.graph)
        busy += adds
    short_ones = [w for w in around if w < 5_000_000]
    return (f"around replays: {len(short_ones)} pauses, {sum(short_ones) / 1e6:.2f} ms in all ({100 * sum(short_ones) / busy:.2f} % of the time in which something ran), "
            f"median {statistics.median(short_ones or [0]) / 1e3:.1f} us; {len(around) - len(short_ones)} longer than 5 ms")


def picture(events):
    """One replay, 200 us a line; the six kernels that take most have a colour each."""
    from curves import COLORS, STYLE
    width, line_ns, height = 1180, 200_000, 26
    begin = events[0].start
    weight = collections.Counter()
    for e in events:
        weight[short(e.name)] += e.end - e.start
    names = [n for n, _ in weight.most_common()]
    color = {n: COLORS[i] if i < len(COLORS) else OTHER for i, n in enumerate(names)}
    lines = (max(e.end for e in events) - begin) // line_ns + 1
    out = []
    for k, e in enumerate(events):
        a, b = e.start - begin, e.end - begin
        while a < b:
            line = a // line_ns
            stop = min(b, (line + 1) * line_ns)
            x, w = (a % line_ns) / line_ns * width, (stop - a) / line_ns * width
            out.append(f'<rect x="{x + 10:.1f}" y="{30 + line * height + k % 2 * 9}" width="{max(w, .4):.1f}" height="9" fill="{color[short(e.name)]}">'
                       f"<title>{short(e.name).replace('<', '&lt;')} {(e.end - e.start) / 1e3:.2f} us</title></rect>")
            a = stop
    low = 30 + lines * height + 12
    legend = "".join(f'<rect x="{10 + i % 2 * 590}" y="{low + i // 2 * 18}" width="10" height="10" rx="2" fill="{color[n]}"/>'
                     f'<text x="{26 + i % 2 * 590}" y="{low + 9 + i // 2 * 18}">{n.replace("<", "&lt;")} {weight[n] / 1e3:.0f} us</text>'
                     for i, n in enumerate(names[:len(COLORS)]))
    total = (max(e.end for e in events) - begin) / 1e3
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="1200" height="{low + 64}" viewBox="0 0 1200 {low + 64}" role="img" '
            f'aria-label="kernels of one decode step over time"><style>{STYLE}</style>'
            f'<text class="title" x="10" y="20">{total:.0f} us, 200 us a line; neighbours alternate in height</text>'
            + "".join(out) + legend + "</svg>\n")


def main():
    ap = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    ap.add_argument("file")
    ap.add_argument("--svg")
    ap.add_argument("--graph", type=int, default=1)
    a = ap.parse_args()
    events = read(a.file)
    if not events:
        sys.exit(f"{a.file}: nothing was recorded")
    print(f"{len(events)} kernels and copies\n")
    graphs = collections.defaultdict(list)
    for e in events:
        if e.graph:
            graphs[e.graph].append(e)
    if not graphs:
        print("\n".join(table([events])))
        return
    chosen = sorted(graphs.values(), key=len, reverse=True)[a.graph - 1]
    replays = launches(chosen)
    print("\n".join(table(replays)))
    print("\n" + pauses(events))
    if a.svg:
        pathlib.Path(a.svg).write_text(picture(replays[len(replays) // 2]))


if __name__ == "__main__":
    main()
