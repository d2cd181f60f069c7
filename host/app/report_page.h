// Style and script of report.html. The script only shows values under the pointer: the page reads without it.
#pragma once

namespace dapo {

inline constexpr const char* kReportStyle = R"(
:root { color-scheme: light dark; --back: #f6f6f4; --card: #fcfcfb; --edge: #e1e0d9; --grid: #e9e8e2; --axis: #b9b8b0;
  --text: #0b0b0b; --soft: #5b5a56; --good: #1a7f37; --bad: #c62b2b; --warn: #8a5a00; --warn-back: #fdf3dc;
  --c0: #2a78d6; --c1: #eb6834; --c2: #1a9e6c; --c3: #9a5bd0; --c4: #c99000; --c5: #d6457d; --c6: #3aa3b8; --c7: #7a7870;
  --low: 214, 69, 69; }
@media (prefers-color-scheme: dark) { :root { --back: #121211; --card: #1a1a19; --edge: #2f2f2c; --grid: #282826;
  --axis: #55544f; --text: #f3f2ee; --soft: #aeada6; --good: #4cc26f; --bad: #ff7b72; --warn: #f0c060; --warn-back: #2c2413;
  --c0: #4b97ee; --c1: #e9713e; --c2: #35b985; --c3: #b784e6; --c4: #d9a92b; --c5: #ea6a9b; --c6: #4fbace; --c7: #98968d;
  --low: 232, 86, 80; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text); font: 14px/1.45 system-ui, "Segoe UI", sans-serif; }
main { max-width: 1480px; margin: 0 auto; padding: 20px 16px 48px; }
h1 { font-size: 22px; margin: 0 0 2px; overflow-wrap: anywhere; } h2 { font-size: 16px; margin: 28px 0 10px; }
p { margin: 4px 0; } .soft, small { color: var(--soft); } small { font-size: 12px; font-weight: 400; }
.about { overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 10px; margin: 14px 0; }
.tile, figure, .sample, .box { background: var(--card); border: 1px solid var(--edge); border-radius: 8px; }
.tile { padding: 9px 12px; } .tile b { display: block; font-size: 19px; font-weight: 600; font-variant-numeric: tabular-nums; }
.alarms { background: var(--warn-back); border: 1px solid var(--edge); border-left: 4px solid var(--warn); border-radius: 8px;
  padding: 10px 14px; margin: 14px 0; } .alarms li { margin: 4px 0; overflow-wrap: anywhere; } .alarms ul { margin: 4px 0; padding-left: 18px; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); gap: 12px; }
figure { margin: 0; padding: 10px 12px 6px; min-width: 0; }
figcaption { font-weight: 600; display: flex; gap: 6px; align-items: baseline; flex-wrap: wrap; }
figcaption output { margin-left: auto; font-weight: 400; font-size: 12px; color: var(--soft); font-variant-numeric: tabular-nums; }
.legend { display: flex; flex-wrap: wrap; gap: 0 12px; font-size: 12px; color: var(--soft); min-height: 18px; }
.legend b { color: var(--text); font-weight: 600; font-variant-numeric: tabular-nums; }
.legend i { display: inline-block; width: 12px; height: 3px; border-radius: 2px; margin: 0 5px 3px 0; background: currentColor; }
.legend i.dashed { background: linear-gradient(90deg, currentColor 40%, transparent 40% 60%, currentColor 60%); }
.legend span { overflow-wrap: anywhere; }
figure svg { display: block; width: 100%; height: auto; touch-action: pan-y; }
svg text { font-size: 11px; fill: var(--soft); font-variant-numeric: tabular-nums; }
text.y { text-anchor: end; } text.x { text-anchor: middle; } text.n { text-anchor: end; }
.grid { stroke: var(--grid); } .axis { stroke: var(--axis); } .cursor { stroke: var(--axis); visibility: hidden; }
.s0 { color: var(--c0); } .s1 { color: var(--c1); } .s2 { color: var(--c2); } .s3 { color: var(--c3); }
.s4 { color: var(--c4); } .s5 { color: var(--c5); } .s6 { color: var(--c6); } .s7 { color: var(--c7); }
.line { fill: none; stroke: currentColor; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
path.dashed { stroke-dasharray: 5 4; }
.raw { fill: none; stroke: currentColor; stroke-width: 1; opacity: .35; } .band { fill: currentColor; opacity: .18; }
.stack { fill: currentColor; opacity: .75; } circle { fill: currentColor; }
details { margin: 8px 0; } summary { cursor: pointer; }
.box { padding: 8px 12px; margin: 8px 0; overflow-x: auto; } pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere;
  font: 12.5px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; tab-size: 2; }
.plain pre { white-space: pre; }
table { border-collapse: collapse; font-size: 13px; } td, th { padding: 3px 14px 3px 0; text-align: left; vertical-align: top; }
th { color: var(--soft); font-weight: 500; } td { overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 460px), 1fr)); gap: 12px; align-items: start; }
.sample { padding: 10px 12px; min-width: 0; } .sample header { display: flex; flex-wrap: wrap; gap: 2px 10px; align-items: baseline; font-size: 12px;
  color: var(--soft); margin-bottom: 6px; } .sample pre { unicode-bidi: plaintext; }
.sample .prompt { color: var(--soft); border-bottom: 1px solid var(--edge); padding-bottom: 6px; margin-bottom: 6px; }
.right, .wrong, .unjudged { font-weight: 600; font-size: 13px; } .right { color: var(--good); } .wrong { color: var(--bad); } .unjudged { color: var(--warn); }
.t1, .t2, .t3, .t4, .t5, .t6, .key i { border-radius: 3px; }
.t1 { background: rgba(var(--low), .10); } .t2 { background: rgba(var(--low), .20); } .t3 { background: rgba(var(--low), .32); }
.t4 { background: rgba(var(--low), .46); } .t5 { background: rgba(var(--low), .60); } .t6 { background: rgba(var(--low), .78); }
.key { font-size: 12px; color: var(--soft); } .key i { font-style: normal; padding: 1px 6px; margin: 0 2px; color: var(--text); }
)";

inline constexpr const char* kReportScript = R"(
for (const figure of document.querySelectorAll('figure')) {
  const svg = figure.querySelector('svg'), cursor = svg.querySelector('.cursor'), at = figure.querySelector('output');
  const [low, high] = svg.dataset.x.split(' ').map(Number), left = 48, right = 410, width = 420;
  const curves = [...svg.querySelectorAll('g[data-of]')].map(g => {
    const x = g.dataset.x.split(' ');
    return { y: g.dataset.y.split(','), out: figure.querySelector('b[data-of="' + g.dataset.of + '"]'),
             x: x.length == 3 ? Array.from({ length: x[2] }, (_, i) => +x[1] + i * x[0]) : g.dataset.x.split(',').map(Number) };
  });
  const newest = curves.map(c => c.out.textContent);
  const nearest = (list, v) => {
    let a = 0, b = list.length - 1;
    while (b - a > 1) { const m = a + b >> 1; if (list[m] < v) a = m; else b = m; }
    return Math.abs(list[a] - v) < Math.abs(list[b] - v) ? a : b;
  };
  svg.addEventListener('pointermove', event => {
    const box = svg.getBoundingClientRect(), px = (event.clientX - box.left) / box.width * width;
    let v = Math.min(high, Math.max(low, low + (px - left) / (right - left) * (high - low)));
    const longest = curves.reduce((a, c) => c.x.length > a.x.length ? c : a);
    v = longest.x[nearest(longest.x, v)];
    const x = left + (v - low) / (high - low) * (right - left);
    cursor.setAttribute('x1', x); cursor.setAttribute('x2', x); cursor.style.visibility = 'visible';
    at.textContent = svg.dataset.name + ' ' + +v.toPrecision(6);
    for (const c of curves) c.out.textContent = c.y[nearest(c.x, v)];
  });
  svg.addEventListener('pointerleave', () => {
    cursor.style.visibility = 'hidden'; at.textContent = '';
    curves.forEach((c, i) => c.out.textContent = newest[i]);
  });
}
)";

}  // namespace dapo
