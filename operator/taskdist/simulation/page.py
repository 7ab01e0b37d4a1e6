"""How the report looks: colours told apart by people who see few, on a light or a dark ground."""

# c0–c6: Okabe and Ito's palette. s0–s6: one hue, from quiet to strong, for levels.
STYLE = """
:root{--ground:#fff;--ink:#1c2126;--quiet:#5d6873;--rule:#e3e7eb;--card:#fafbfc;
--c0:#0072b2;--c1:#e69f00;--c2:#009e73;--c3:#cc79a7;--c4:#56b4e9;--c5:#d55e00;--c6:#8a8f00;
--s0:#c6dbef;--s1:#9ecae1;--s2:#6baed6;--s3:#4292c6;--s4:#2171b5;--s5:#08519c;--s6:#08306b}
@media(prefers-color-scheme:dark){:root{--ground:#14181c;--ink:#e6eaee;--quiet:#98a4af;--rule:#2b333b;--card:#1a2026;
--c0:#4aa8e0;--s0:#12365f;--s1:#1a4a80;--s2:#2563a3;--s3:#3b80c2;--s4:#61a2d8;--s5:#93c4e8;--s6:#cfe5f6}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1240px;margin:0 auto;padding:28px 24px 60px}
h1{font-size:26px;margin:0 0 4px}h2{font-size:19px;margin:32px 0 10px}h3{font-size:16px;margin:22px 0 8px}
.quiet{color:var(--quiet);margin:2px 0 8px}
.grid2{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr));gap:16px;margin:14px 0 20px}
figure{margin:0;padding:12px 14px 6px;border:1px solid var(--rule);border-radius:8px;background:var(--card)}
figcaption{font-weight:600;margin-bottom:2px}
svg{display:block;width:100%;height:auto;font:11.5px system-ui,-apple-system,"Segoe UI",sans-serif}
.grid{stroke:var(--rule)}.none{stroke:var(--quiet);stroke-dasharray:4 3}
.tick,.label{fill:var(--quiet)}.name{fill:var(--ink)}
.area{fill:var(--c);stroke:none}.line{fill:none;stroke:var(--c);stroke-width:1.6;stroke-linejoin:round}
.range{stroke:var(--c);stroke-width:1.6}.mark{fill:var(--c)}
.hollow{fill:var(--card);stroke:var(--c);stroke-width:1.8}
.c0{--c:var(--c0)}.c1{--c:var(--c1)}.c2{--c:var(--c2)}.c3{--c:var(--c3)}.c4{--c:var(--c4)}.c5{--c:var(--c5)}
.c6{--c:var(--c6)}
.s0{--c:var(--s0)}.s1{--c:var(--s1)}.s2{--c:var(--s2)}.s3{--c:var(--s3)}.s4{--c:var(--s4)}.s5{--c:var(--s5)}
.s6{--c:var(--s6)}
.legend{margin:0 0 4px;color:var(--quiet);font-size:13px;display:flex;flex-wrap:wrap;gap:2px 14px}
.legend i{display:inline-block;width:11px;height:11px;border-radius:2px;background:var(--c);margin-right:5px}
.wide{overflow-x:auto;margin:10px 0 18px}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:4px 14px 4px 0;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap}
th{color:var(--quiet);font-weight:600}th:first-child,td:first-child{text-align:left}
details{margin:14px 0;border-top:1px solid var(--rule);padding-top:10px}
summary{font-size:19px;font-weight:600;cursor:pointer}
@media print{details{display:block}}
"""
