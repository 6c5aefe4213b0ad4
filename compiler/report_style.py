"""The look of the HTML report: one style sheet, readable on light and on dark screens."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #faf9f7; --card: #ffffff; --ink: #1d2126; --soft: #626a73; --line: #e3e0db;
  --accent: #b3541e; --accent-soft: #f3dccd; --before: #b9bec5; --peer: #3c6e9f;
  --good: #2c7a4b; --good-soft: #e0f1e6; --bad: #b3261e; --bad-soft: #f9dedc;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171a; --card: #1c2024; --ink: #e8e6e3; --soft: #9aa3ad; --line: #2f353b;
    --accent: #f08a4b; --accent-soft: #4a2c19; --before: #59616b; --peer: #7fb2e5;
    --good: #6cc48f; --good-soft: #1b3325; --bad: #f2867e; --bad-soft: #43201e;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; padding: 2.5rem 1.25rem 4rem; background: var(--page); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  font-variant-numeric: tabular-nums;
}
main { max-width: 1000px; margin: 0 auto; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0; letter-spacing: -0.015em; }
h2 { font-size: 1.1rem; margin: 2.75rem 0 0.4rem; letter-spacing: -0.005em; }
p { margin: 0.35rem 0 0.9rem; max-width: 46rem; }
.lead { font-size: 1.08rem; margin-top: 0.6rem; }
.soft, caption, figcaption { color: var(--soft); }
.brand { color: var(--accent); font-weight: 650; letter-spacing: 0.02em; margin-bottom: 0.4rem; }
.facts { display: flex; flex-wrap: wrap; gap: 0.15rem 1.4rem; color: var(--soft);
         margin: 0.8rem 0; }
.tiles { display: grid; gap: 0.8rem; margin: 1.5rem 0 0;
         grid-template-columns: repeat(auto-fit, minmax(145px, 1fr)); }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
        padding: 0.9rem 1.1rem; }
.tile b { display: block; font-size: 1.75rem; line-height: 1.2; font-weight: 650;
          letter-spacing: -0.02em; }
.tile span { display: block; } .tile .soft { font-size: 0.86rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
        padding: 1rem 1.2rem; overflow-x: auto; }
figure { margin: 0; } figcaption { font-size: 0.88rem; margin-top: 0.4rem; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--ink); font: 12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
/* A halo in the card's colour keeps letters clear of the lines behind them. */
svg text { paint-order: stroke; stroke: var(--card); stroke-width: 3px; stroke-linejoin: round; }
svg text.soft { fill: var(--soft); } svg text.strong { font-weight: 650; fill: var(--accent); }
svg .grid { stroke: var(--line); } svg .axis { stroke: var(--soft); }
svg .before { fill: var(--before); } svg .after { fill: var(--accent); }
svg .peer { fill: var(--peer); } svg .band { fill: var(--accent-soft); opacity: 0.45; }
svg .arrow { stroke: var(--soft); stroke-dasharray: 3 4; fill: none; }
table { border-collapse: collapse; width: 100%; font-size: 0.93rem; }
th { text-align: left; font-weight: 550; color: var(--soft); font-size: 0.84rem; }
th, td { padding: 0.42rem 0.9rem 0.42rem 0; border-bottom: 1px solid var(--line);
         vertical-align: top; }
tr:last-child td { border-bottom: 0; }
td.n, th.n { text-align: right; white-space: nowrap; }
td.name { white-space: nowrap; font-weight: 550; }
.bar { display: block; height: 3px; border-radius: 2px; background: var(--accent);
       margin-top: 3px; margin-left: auto; }
.mark { display: inline-block; width: 1.35em; height: 1.35em; line-height: 1.35em;
        text-align: center; border-radius: 50%; font-size: 0.8rem; font-weight: 700; }
.pass { color: var(--good); background: var(--good-soft); }
.fail { color: var(--bad); background: var(--bad-soft); }
.meter { height: 12px; border-radius: 6px; background: var(--before); overflow: hidden;
         margin: 0.2rem 0 0.6rem; }
.meter i { display: block; height: 100%; background: var(--accent); }
code { font: 0.86em/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
details { border-bottom: 1px solid var(--line); padding: 0.5rem 0; }
details:last-child { border-bottom: 0; }
summary { cursor: pointer; } summary .soft { margin-left: 0.6rem; }
details pre { margin: 0.5rem 0 0.3rem; white-space: pre-wrap; overflow-wrap: anywhere;
              font: 0.82rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
@media print { body { background: none; padding: 0; } .card, .tile { break-inside: avoid; } }
"""
