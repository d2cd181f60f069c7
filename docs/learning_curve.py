#!/usr/bin/env python3
"""A run's learning curve as an SVG, light and dark: docs/learning_curve.py RUN/metrics.jsonl >docs/demo_curve.svg

Left: accuracy on the responses drawn in each step, and on the test set with its 95 % confidence interval. Right: the
groups drawn in each step, by the decision of dynamic sampling. Needs only the standard library.
"""
import json, sys

STYLE = """
  svg { background: #fcfcfb; font: 12px system-ui, sans-serif; }
  text { fill: #52514e; } .title { fill: #0b0b0b; font-size: 14px; font-weight: 600; } .value { fill: #0b0b0b; font-weight: 600; }
  .grid { stroke: #e1e0d9; } .axis { stroke: #c3c2b7; }
  .drawn { fill: none; stroke: #86b6ef; stroke-width: 2; } .test { fill: #2a78d6; stroke: #2a78d6; stroke-width: 2; }
  .kept { fill: #2a78d6; } .right { fill: #86b6ef; } .wrong { fill: #eb6834; }
  @media (prefers-color-scheme: dark) {
    svg { background: #1a1a19; } text { fill: #c3c2b7; } .title, .value { fill: #ffffff; }
    .grid { stroke: #2c2c2a; } .axis { stroke: #383835; }
    .drawn { stroke: #184f95; } .test { fill: #3987e5; stroke: #3987e5; }
    .kept { fill: #3987e5; } .right { fill: #184f95; } .wrong { fill: #d95926; }
  }
"""
LEFT, TOP, WIDTH, HEIGHT = 52, 56, 326, 190  # of a panel's plot
PANEL = 400


class Panel:
    def __init__(self, title, steps, top, ticks, unit=""):
        self.steps, self.top, self.out = steps, top, [f'<text class="title" x="{LEFT}" y="22">{title}</text>']
        for tick in ticks:
            y = self.y(tick)
            self.out.append(f'<line class="{"grid" if tick else "axis"}" x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
                            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick}{unit}</text>')
        for step in range(0, steps + 1, max(1, steps // 4)):
            self.text(self.x(step), TOP + HEIGHT + 17, step, "middle")
        self.text(LEFT + WIDTH / 2, TOP + HEIGHT + 34, "step", "middle")

    def x(self, step):
        return LEFT + WIDTH * step / self.steps

    def y(self, value):
        return TOP + HEIGHT * (1 - value / self.top)

    def text(self, x, y, text, anchor="start", kind=""):
        self.out.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{f" class={chr(34)}{kind}{chr(34)}" if kind else ""}>{text}</text>')

    def legend(self, entries):
        x = LEFT
        for kind, text in entries:
            self.out.append(f'<rect class="{kind}" x="{x}" y="34" width="10" height="10" rx="2"/>')
            self.text(x + 14, 43, text)
            x += 28 + 6.2 * len(text)


def curve(rows):
    steps = max(r["step"] for r in rows)
    panel = Panel("Right answers", steps, 100, range(0, 101, 25), " %")
    panel.legend([("right", "drawn in the step"), ("kept", "test set, 95 % confidence")])
    drawn = [(panel.x(r["step"]), panel.y(100 * r["reward/acc"])) for r in rows if r.get("groups/generated")]
    panel.out.append('<polyline class="drawn" points="' + " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn) + '"/>')
    for r in (r for r in rows if "eval/low" in r):
        x, y = panel.x(r["step"]), panel.y(100 * r["eval/avg"])
        low, high = panel.y(100 * r["eval/low"]), panel.y(100 * r["eval/high"])
        panel.out.append(f'<line class="test" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'
                         f'<circle class="test" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>')
        first, last = r["step"] == 0, r["step"] == steps
        panel.text(x + (8 if first else -2 if last else 0), y + (18 if first else 20), f'{100 * r["eval/avg"]:.1f} %',
                   "start" if first else "end" if last else "middle", "value")
    return panel


def groups(rows):
    rows = [r for r in rows if r.get("groups/generated")]
    most = max(r["groups/generated"] for r in rows)
    each = next(s for s in (1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000, 2000, 5000, 10000) if 5 * s >= most)
    steps = max(r["step"] for r in rows)
    panel = Panel("Groups drawn per step", steps, each * -(-most // each), range(0, each * -(-most // each) + 1, each))
    panel.legend([("kept", "mixed: these train"), ("right", "all right"), ("wrong", "all wrong")])
    width = 0.7 * WIDTH / steps
    for r in rows:
        base = 0
        for kind, key in (("kept", "groups/kept"), ("right", "groups/all_right"), ("wrong", "groups/all_wrong")):
            if r[key]:
                top = panel.y(base + r[key])
                panel.out.append(f'<rect class="{kind}" x="{panel.x(r["step"] - 0.5) - width / 2:.1f}" y="{top:.1f}" '
                                 f'width="{width:.1f}" height="{panel.y(base) - top:.1f}"/>')
            base += r[key]
    return panel


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    rows = [json.loads(line) for line in open(sys.argv[1])]
    print(f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * PANEL}" height="300" viewBox="0 0 {2 * PANEL} 300" role="img" '
          f'aria-label="Learning curve of {max(r["step"] for r in rows)} steps"><style>{STYLE}</style>')
    for at, panel in enumerate((curve(rows), groups(rows))):
        print(f'<g transform="translate({at * PANEL} 0)">', *panel.out, "</g>", sep="\n")
    print("</svg>")


main()
