-- SPDX-License-Identifier: Apache-2.0
-- The page around a report. {{word}} is filled in by eirun.report.
-- luacheck: no max line length
return [==[
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{title}}</title>
<style>
:root {
  --paper: #fbfbfa; --card: #ffffff; --ink: #1d2129; --soft: #5d6675; --line: #e3e5e9; --faint: #f0f1f3;
  --good: #1a7f4b; --good-bg: #e6f4ec; --bad: #b42318; --bad-bg: #fdecea; --band: #2563eb12;
  --c1: #2563eb; --c2: #d9730d; --c3: #16905f; --c4: #9333c8; --c5: #0891a5; --c6: #be3455;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14161a; --card: #1b1e24; --ink: #e7e9ee; --soft: #98a1b0; --line: #2d323b; --faint: #23272e;
    --good: #5fd39a; --good-bg: #16302380; --bad: #ff8a7d; --bad-bg: #3b1d1a80; --band: #7aa2ff17;
    --c1: #7aa2ff; --c2: #ffad5c; --c3: #5fd39a; --c4: #d09bff; --c5: #5fd0e0; --c6: #ff8fa8;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 32px 24px 64px; }
header { display: flex; align-items: baseline; gap: 14px; flex-wrap: wrap; }
h1 { font-size: 26px; line-height: 1.25; margin: 0; letter-spacing: -0.01em; }
h2 { font-size: 16px; margin: 30px 0 10px; }
.subtitle { color: var(--soft); margin: 4px 0 0; }
.verdict { font-weight: 600; font-size: 14px; padding: 2px 12px; border-radius: 999px; }
.good { color: var(--good); } .bad { color: var(--bad); }
.verdict.good { background: var(--good-bg); } .verdict.bad { background: var(--bad-bg); }
.facts { display: flex; flex-wrap: wrap; gap: 1px; margin: 22px 0; background: var(--line); border: 1px solid var(--line); border-radius: 10px; overflow: hidden; }
.facts div { flex: 1 1 150px; background: var(--card); padding: 10px 14px; }
dt { color: var(--soft); font-size: 12.5px; }
dd { margin: 0; font-size: 17px; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.verdicts { list-style: none; margin: 0; padding: 0; border: 1px solid var(--line); border-radius: 10px; background: var(--card); overflow: hidden; }
.verdicts li { display: grid; grid-template-columns: 1fr 1fr 6em; gap: 12px; padding: 8px 14px; color: var(--ink); }
.verdicts li + li { border-top: 1px solid var(--line); }
.verdicts span { font-variant-numeric: tabular-nums; }
.verdicts .good b { color: var(--good); } .verdicts .bad b { color: var(--bad); }
.verdicts b::before { content: "✓ "; } .verdicts .bad b::before { content: "✕ "; }
code { font: 13.5px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.charts { margin-top: 28px; }
figure { margin: 0 0 14px; padding: 14px 16px 8px; background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
figcaption { display: flex; align-items: baseline; flex-wrap: wrap; gap: 4px 10px; font-size: 14px; }
.keys { display: flex; flex-wrap: wrap; gap: 2px 18px; margin-left: auto; }
.key small, .note, small.note { color: var(--soft); font-variant-numeric: tabular-nums; }
.key i { display: inline-block; width: 14px; height: 3px; border-radius: 2px; margin-right: 6px; vertical-align: 4px; }
.k1 { background: var(--c1); } .k2 { background: var(--c2); } .k3 { background: var(--c3); } .k4 { background: var(--c4); } .k5 { background: var(--c5); } .k6 { background: var(--c6); }
svg { display: block; width: 100%; height: auto; overflow: visible; margin-top: -12px; touch-action: pan-y; }
.grid { stroke: var(--line); } .faint { stroke: var(--faint); }
.tick { fill: var(--soft); font-size: 11.5px; font-variant-numeric: tabular-nums; } .end { text-anchor: end; } .mid { text-anchor: middle; }
.curve { fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
.c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); } .c3 { stroke: var(--c3); } .c4 { stroke: var(--c4); } .c5 { stroke: var(--c5); } .c6 { stroke: var(--c6); }
.bar { fill: var(--c1); } .band { fill: var(--band); } .mark { stroke: var(--soft); stroke-dasharray: 1 3; }
.limit { stroke: var(--bad); stroke-width: 1.2; stroke-dasharray: 5 4; } .limit-label { fill: var(--bad); }
.hair { stroke: var(--soft); visibility: hidden; }
.under { stroke-width: 3.6; } .legend { color: var(--soft); font-size: 13px; margin: 4px 2px; }
.dotted { display: inline-block; height: 13px; margin: 0 12px 0 7px; vertical-align: -2px; border-left: 1px dashed var(--soft); } .swatch { display: inline-block; width: 14px; height: 12px; margin-right: 7px; vertical-align: -1px; background: var(--band); border: 1px solid var(--line); }
#tip { position: fixed; pointer-events: none; display: none; background: var(--card); color: var(--ink); border: 1px solid var(--line); border-radius: 8px; padding: 6px 10px; font-size: 12.5px; box-shadow: 0 4px 16px #0003; font-variant-numeric: tabular-nums; white-space: nowrap; z-index: 1; }
#tip b { display: block; } #tip i { display: inline-block; width: 9px; height: 9px; border-radius: 2px; margin-right: 6px; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 10px; background: var(--card); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 7px 14px; white-space: nowrap; } th { color: var(--soft); font-weight: 500; font-size: 13px; }
td { border-top: 1px solid var(--line); } .num { text-align: right; }
@media print { body { background: #fff; } figure, tr { break-inside: avoid; } }
</style>
</head>
<body>
<main>
<header><h1>{{title}}</h1>{{verdict}}</header>
{{subtitle}}
{{facts}}
{{thresholds}}
{{charts}}
{{tables}}
{{notes}}
</main>
<div id="tip"></div>
<script>
(function () {
  var source = document.getElementById("data");
  if (!source) return;
  var data = JSON.parse(source.textContent), tip = document.getElementById("tip");
  var pictures = Array.prototype.slice.call(document.querySelectorAll("svg[data-panel]"));
  function clock(t) {
    t = Math.round(t);
    var two = function (n) { return (n < 10 ? "0" : "") + n; };
    return t >= 3600 ? Math.floor(t / 3600) + ":" + two(Math.floor(t / 60) % 60) + ":" + two(t % 60) : Math.floor(t / 60) + ":" + two(t % 60);
  }
  function before(points, t) {
    var low = 0, high = points.length;
    while (low < high) { var mid = (low + high) >> 1; if (points[mid][0] <= t) low = mid + 1; else high = mid; }
    return low - 1;
  }
  function value(series, t) {
    var i = before(series.points, t);
    if (!series.step && i + 1 < series.points.length && (i < 0 || series.points[i + 1][0] - t < t - series.points[i][0])) i++;
    return i < 0 ? "none yet" : series.points[i][1];
  }
  function show(picture, event) {
    var box = picture.getBoundingClientRect(), x = (event.clientX - box.left) / box.width * data.width;
    x = Math.max(data.left, Math.min(data.width - data.right, x));
    var t = data.from + (x - data.left) / (data.width - data.left - data.right) * (data.to - data.from);
    pictures.forEach(function (other) {
      var hair = other.querySelector(".hair");
      hair.setAttribute("x1", x); hair.setAttribute("x2", x); hair.style.visibility = "visible";
    });
    tip.textContent = "";
    var head = document.createElement("b"); head.textContent = clock(t); tip.appendChild(head);
    data.panels[picture.dataset.panel].forEach(function (series, i) {
      var row = document.createElement("div"), key = document.createElement("i");
      key.className = "k" + (i % 6 + 1);
      row.appendChild(key); row.appendChild(document.createTextNode(series.name + " " + value(series, t)));
      tip.appendChild(row);
    });
    tip.style.display = "block";
    var over = event.clientX + tip.offsetWidth + 24 > window.innerWidth;
    tip.style.left = (over ? event.clientX - tip.offsetWidth - 14 : event.clientX + 14) + "px";
    tip.style.top = event.clientY + 14 + "px";
  }
  function hide() {
    tip.style.display = "none";
    pictures.forEach(function (picture) { picture.querySelector(".hair").style.visibility = "hidden"; });
  }
  pictures.forEach(function (picture) {
    picture.addEventListener("pointermove", function (event) { show(picture, event); });
    picture.addEventListener("pointerleave", hide);
  });
})();
</script>
</body>
</html>
]==]
