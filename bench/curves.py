"""Curves as an SVG, light and dark, with the standard library alone: panels side by side over one legend."""
import math, statistics

STYLE = """
  svg { background: #fcfcfb; font: 12px system-ui, sans-serif; }
  text { fill: #52514e; } .title { fill: #0b0b0b; font-size: 14px; font-weight: 600; }
  .grid { stroke: #e1e0d9; } .axis { stroke: #c3c2b7; } polyline { fill: none; stroke-width: 2; } .band { opacity: .12; }
  @media (prefers-color-scheme: dark) {
    svg { background: #1a1a19; } text { fill: #c3c2b7; } .title { fill: #ffffff; } .grid { stroke: #2c2c2a; } .axis { stroke: #383835; }
  }
"""
COLORS = ["#8a8880", "#b08a2e", "#3d9a6b", "#9b5fc0", "#2a78d6", "#e0552b"]
LEFT, TOP, WIDTH, HEIGHT, PANEL = 48, 40, 330, 230, 400


def panel(title, curves, top, ticks, unit, x_title="step", log_x=0, colors=COLORS):
    """curves: for each line {x: [values]}, drawn as their mean with a band of one standard deviation.
    log_x: 0, or the base of the logarithm of x, whose powers are marked."""
    xs = [x for c in curves for x in c]
    log = lambda v: round(math.log(v, log_x), 9)
    low, high = (math.floor(log(min(xs))), math.ceil(log(max(xs)))) if log_x else (0, max(xs))
    x = lambda v: LEFT + WIDTH * ((log(v) if log_x else v) - low) / (high - low)
    y = lambda v: TOP + HEIGHT * (1 - min(v, top) / top)
    out = [f'<text class="title" x="{LEFT}" y="22">{title}</text>']
    for t in ticks:
        out.append(f'<line class="{"grid" if t else "axis"}" x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y(t):.1f}" y2="{y(t):.1f}"/>'
                   f'<text x="{LEFT - 6}" y="{y(t) + 4:.1f}" text-anchor="end">{t:g}{unit}</text>')
    for v in [float(log_x) ** e for e in range(low, high + 1)] if log_x else range(0, high + 1, max(1, high // 4)):
        out.append(f'<text x="{x(v):.1f}" y="{TOP + HEIGHT + 17}" text-anchor="middle">{v:g}</text>')
    out.append(f'<text x="{LEFT + WIDTH / 2}" y="{TOP + HEIGHT + 34}" text-anchor="middle">{x_title}</text>')
    for color, curve in zip(colors, curves):
        mean = {k: statistics.mean(v) for k, v in sorted(curve.items())}
        off = {k: statistics.stdev(v) if len(v) > 1 else 0.0 for k, v in curve.items()}
        points = lambda p: " ".join(f"{a:.1f},{b:.1f}" for a, b in p)
        if any(off.values()):
            edge = [(x(k), y(mean[k] + off[k])) for k in mean] + [(x(k), y(max(0.0, mean[k] - off[k]))) for k in reversed(mean)]
            out.append(f'<polygon class="band" fill="{color}" points="{points(edge)}"/>')
        out.append(f'<polyline stroke="{color}" points="{points((x(k), y(mean[k])) for k in mean)}"/>')
    return "".join(out)


def picture(panels, names, label, colors=COLORS):
    """panels: results of panel(); names: of the lines, for the legend; label: the picture in words."""
    legend = "".join(f'<rect fill="{colors[i]}" x="{LEFT + i % 3 * 250}" y="{TOP + HEIGHT + 52 + i // 3 * 20}" width="10" height="10" rx="2"/>'
                     f'<text x="{LEFT + 16 + i % 3 * 250}" y="{TOP + HEIGHT + 61 + i // 3 * 20}">{name}</text>' for i, name in enumerate(names))
    width, height = max(2, len(panels)) * PANEL, TOP + HEIGHT + 100
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" '
            f'aria-label="{label}"><style>{STYLE}</style>'
            + "".join(f'<g transform="translate({i * PANEL} 0)">{p}</g>' for i, p in enumerate(panels)) + legend + "</svg>\n")
