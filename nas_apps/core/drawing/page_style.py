"""The style sheet of the report page."""

from __future__ import annotations

STYLE = """
:root{color-scheme:light dark;--page:#f4f6f8;--paper:#fff;--ink:#1f2733;--muted:#5f6b7c;--rule:#e1e5eb;--axis:#a9b2bf;
--wire:#7d8899;--gather:#b9c1cd;--state:#f1f4f8;--terminal:#e3e9f2;--edge:#5d6a7e;--good:#1d7f46;--warn:#9a5b00}
@media (prefers-color-scheme:dark){:root{--page:#0f1318;--paper:#171c23;--ink:#e4e8ee;--muted:#9aa5b5;--rule:#2a323d;
--axis:#566173;--wire:#8793a6;--gather:#4d586a;--state:#222a35;--terminal:#2b3646;--edge:#8793a6;--good:#5fcb8c;
--warn:#e0a548}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Helvetica,Arial,"DejaVu Sans",sans-serif}
main{max-width:1180px;margin:0 auto;padding:32px 20px 56px}
h1{font-size:26px;line-height:1.2;margin:0}
h2{font-size:18px;margin:40px 0 12px}
h3{font-size:14px;margin:20px 0 8px;color:var(--muted);font-weight:600}
p{margin:6px 0}.note{color:var(--muted);font-size:13px}.fault{color:var(--warn)}
code,pre{font-family:ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace;font-size:13px}
pre{background:var(--paper);border:1px solid var(--rule);border-radius:8px;padding:12px 14px;margin:8px 0;
overflow-x:auto}
pre.all{user-select:all;white-space:pre-wrap;overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:10px;margin:20px 0 0}
.tiles div{background:var(--paper);border:1px solid var(--rule);border-radius:8px;padding:10px 14px}
.tiles dt{color:var(--muted);font-size:12.5px}
.tiles dd{margin:2px 0 0;font-size:20px;font-weight:600;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.tiles .lead{border-color:var(--wire)}.tiles .words dd{font-size:14px;line-height:1.3;margin-top:6px}
.scroll{overflow-x:auto;background:var(--paper);border:1px solid var(--rule);border-radius:8px;max-width:100%}
.scroll.fit{width:fit-content}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:7px 14px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--rule)}
thead th{color:var(--muted);font-size:12.5px;font-weight:600;vertical-align:bottom}
tbody tr:last-child>*{border-bottom:0}
th:first-child,td.word{text-align:left}tbody th{font-weight:500}
td.no{color:var(--axis)}td.best{color:var(--good);font-weight:650}
.figures{display:flex;flex-wrap:wrap;gap:12px}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(340px,100%),1fr));gap:12px}
figure{margin:0;background:var(--paper);border:1px solid var(--rule);border-radius:8px;overflow-x:auto;max-width:100%}
figure svg{display:block;height:auto;max-width:100%}
.charts svg{width:100%}
.wide svg{max-width:none}.row{width:100%}
figcaption{padding:8px 14px 0;color:var(--muted);font-size:13px}
details{margin:8px 0}summary{cursor:pointer;font-weight:500}
svg .paper{fill:var(--paper)}svg .ink{fill:var(--ink)}svg .muted{fill:var(--muted)}svg .rule{stroke:var(--rule)}
svg .axis{stroke:var(--axis)}svg .wire{stroke:var(--wire)}svg .gather{stroke:var(--gather)}svg .tip{fill:var(--wire)}
svg .gather-tip{fill:var(--gather)}svg .state{fill:var(--state);stroke:var(--edge)}
svg .terminal{fill:var(--terminal);stroke:var(--edge)}
@media print{body{background:#fff}main{max-width:none;padding:0}figure,.scroll,pre{break-inside:avoid}}
"""
