#!/usr/bin/env python3
"""Draws docs/sampling_loop.svg and prints its figures as a table.

    DAPO_SAMPLING_LOOP=build/sampling_loop.csv build/release/test_train --gtest_filter='SamplingLoop.*'
    python3 docs/sampling_loop.py build/sampling_loop.csv docs/sampling_loop.svg
"""
import csv
import sys

YIELDS = ["0.1", "0.2", "0.3", "0.6", "0.9"]
STYLE = """
  svg { background: #fcfcfb; font: 12px system-ui, sans-serif; }
  text { fill: #52514e; } .title { fill: #0b0b0b; font-size: 14px; font-weight: 600; } .value { font-size: 10px; }
  .grid { stroke: #e1e0d9; } .axis { stroke: #c3c2b7; } .demand { stroke: #0b0b0b; stroke-width: 2; }
  .a { fill: #2a78d6; } .b { fill: #86b6ef; } .c { fill: #eb6834; }
  @media (prefers-color-scheme: dark) {
    svg { background: #1a1a19; } text { fill: #c3c2b7; } .title { fill: #ffffff; }
    .grid { stroke: #2c2c2a; } .axis { stroke: #383835; } .demand { stroke: #ffffff; }
    .a { fill: #3987e5; } .b { fill: #184f95; } .c { fill: #d95926; }
  }
"""
WIDTH, HEIGHT, LEFT, TOP, PLOT = 340, 300, 34, 66, 190


def panel(at, title, unit, top, series, demand=None):
    """Grouped bars: `series` is (class, name, a value for each yield)."""
    out = [f'<g transform="translate({at} 0)"><text class="title" x="{LEFT}" y="22">{title}</text>']
    x = LEFT
    for kind, name, _ in series:
        out.append(f'<rect class="{kind}" x="{x}" y="34" width="10" height="10" rx="2"/>'
                   f'<text x="{x + 14}" y="43">{name}</text>')
        x += 24 + 6.2 * len(name)
    if demand:
        out.append(f'<line class="demand" x1="{x}" x2="{x + 12}" y1="39" y2="39"/>'
                   f'<text x="{x + 16}" y="43">1 / yield</text>')
    y = lambda value: TOP + PLOT * (1 - value / top)
    for i in range(5):
        value = top * i / 4
        out.append(f'<line class="{"axis" if i == 0 else "grid"}" x1="{LEFT}" x2="{WIDTH - 8}" y1="{y(value):.1f}" '
                   f'y2="{y(value):.1f}"/>'
                   f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    step = (WIDTH - 8 - LEFT) / len(YIELDS)
    bar = (step - 14) / len(series)
    for k, yield_ in enumerate(YIELDS):
        begin = LEFT + k * step + 7
        for i, (kind, _, values) in enumerate(series):
            top_of = y(values[k])
            out.append(f'<rect class="{kind}" x="{begin + i * bar + 1:.1f}" y="{top_of:.1f}" width="{bar - 2:.1f}" '
                       f'height="{TOP + PLOT - top_of:.1f}" rx="1.5"/><text class="value" text-anchor="middle" '
                       f'x="{begin + (i + 0.5) * bar:.1f}" y="{top_of - 4:.1f}">{short(values[k], top)}</text>')
        if demand:
            out.append(f'<line class="demand" x1="{begin}" x2="{begin + step - 14:.1f}" y1="{y(demand[k]):.1f}" '
                       f'y2="{y(demand[k]):.1f}"/>')
        out.append(f'<text x="{begin + step / 2 - 7:.1f}" y="{TOP + PLOT + 17}" text-anchor="middle">'
                   f"{float(yield_):g}</text>")
    out.append(f'<text x="{LEFT + 7}" y="{TOP + PLOT + 35}">yield (share kept); {unit}</text></g>')
    return out


def short(value, top):
    return f"{value:.1f}" if top > 1 else f"{value:.2f}".lstrip("0")


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    rows = list(csv.DictReader(open(sys.argv[1])))

    def values(scheme, batch, field):
        found = {r["yield"]: float(r[field]) for r in rows
                 if (r["scheme"], r["batch"], float(r["drift"])) == (scheme, batch, 0)}
        return [found[y] for y in YIELDS]

    svg = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{3 * WIDTH}" height="{HEIGHT}" '
           f'viewBox="0 0 {3 * WIDTH} {HEIGHT}"><style>{STYLE}</style>']
    svg += panel(0, "Generation batches per step", "512 prompts per step", 4,
                 [("b", "first step", values("expected", "512", "first")),
                  ("a", "later steps", values("expected", "512", "later")),
                  ("c", "fixed 3x", values("fixed", "512", "later"))])
    svg += panel(WIDTH, "Prompts drawn, in batches", "512 prompts per step", 12,
                 [("a", "by expected yield", values("expected", "512", "prompts")),
                  ("c", "fixed 3x", values("fixed", "512", "prompts"))], [1 / float(y) for y in YIELDS])
    svg += panel(2 * WIDTH, "Age of what is trained on, steps", "fixed 3x, dropped: 0", 0.8,
                 [("a", "512 per step", values("expected", "512", "age")),
                  ("b", "32 per step", values("expected", "32", "age")),
                  ("c", "fixed 3x, kept", values("fixed with bank", "512", "age"))])
    open(sys.argv[2], "w").write("\n".join(svg) + "\n</svg>\n")

    print("| prompts per step | yield | generation batches: first step | later steps | prompts / step's | age, steps | "
          "fixed 3x: batches | prompts / step's |")
    print("|" + "---|" * 8)
    fixed = {(r["batch"], r["yield"]): r for r in rows if r["scheme"] == "fixed"}
    for r in rows:
        if r["scheme"] != "expected":
            continue
        f, falls = fixed[r["batch"], r["yield"]], float(r["drift"])
        drift = f", {100 * falls:.1f} points per step" if falls else ""
        beside = "| | |" if falls else f"| {float(f['later']):.2f} | {float(f['prompts']):.2f} |"
        print(f"| {r['batch']} | {float(r['yield']):g}{drift} | {float(r['first']):.2f} (at most {r['first_most']}) | "
              f"{float(r['later']):.2f} (at most {r['later_most']}) | {float(r['prompts']):.2f} | {float(r['age']):.2f} "
              + beside)


if __name__ == "__main__":
    main()
