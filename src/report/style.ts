/** Colours of owners, which differ in lightness too; against both backgrounds each has a contrast of 3 to 1. */
const LIGHT =
  '#1f5fbf #b3261e #14783c #8a5300 #7b3fb5 #00747c #c2185b #5a6b00 #3d4fd1 #a04000 #00695c #666666';
const DARK =
  '#7cb0ff #ff9b91 #6dd58c #ffb95c #cba6ff #5fd4dc #ff8ab5 #c3d64a #a5b0ff #ff9f6b #63d3bf #a8a8a8';

function colours(list: string): string {
  return list
    .split(' ')
    .map((colour, at) => `--o${at}: ${colour};`)
    .join(' ');
}

/** Dark and light by the system; one column on a phone. */
export const STYLE: string = `:root { color-scheme: light dark; --fine: #146c2e; --late: #8a5300; --failing: #b3261e; --line: #c8c8c8; --edge: #767676; --dim: #555; --link: #0b57d0; --back: #fff; --text: #1b1b1b; ${colours(LIGHT)} }
@media (prefers-color-scheme: dark) { :root { --fine: #6dd58c; --late: #ffb95c; --failing: #ffb4ab; --line: #4a4a4a; --edge: #8c8c8c; --dim: #b5b5b5; --link: #9cc3ff; --back: #161616; --text: #e8e8e8; ${colours(DARK)} } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 75rem; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); }
h1 { margin: 0; font-size: 1.75rem; line-height: 1.25; overflow-wrap: anywhere; }
h2, h3 { margin: 1.25rem 0 .25rem; font-size: 1.15rem; }
a { color: var(--link); }
time span { white-space: nowrap; }
p { margin: .25rem 0; overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: .25rem .75rem; margin: .5rem 0; }
nav a { padding: .25rem 0; min-width: 1.5rem; }
nav a[aria-current] { font-weight: bold; text-decoration: none; color: inherit; }
ul { list-style: none; margin: 1rem 0; padding: 0; border-top: 1px solid var(--line); }
li { border-bottom: 1px solid var(--line); }
summary { padding: .6rem 0; cursor: pointer; overflow-wrap: anywhere; }
summary > * { margin-right: .6rem; }
:focus-visible { outline: 2px solid currentColor; outline-offset: 2px; }
.fine { color: var(--fine); } .late { color: var(--late); } .failing { color: var(--failing); }
.line { vertical-align: middle; } .line polyline { fill: none; stroke: currentColor; stroke-width: 1.5; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(15rem, 44%), 1fr)); gap: .5rem 1.5rem; margin: .25rem 0 .75rem; }
dt { font-size: .875rem; color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; }
code { display: inline-block; padding: .2rem .4rem; border: 1px solid var(--line); overflow-wrap: anywhere; user-select: all; }
details[open] { padding-bottom: .75rem; }
.scroll { overflow-x: auto; max-height: 30rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .75rem .3rem 0; text-align: right; font-weight: normal; border-bottom: 1px solid var(--line); }
td { white-space: nowrap; }
th:first-child { text-align: left; }
thead th { position: sticky; top: 0; background: var(--back); color: var(--dim); font-size: .875rem; }
button { font: inherit; color: var(--text); background: none; border: 1px solid var(--edge); border-radius: .3rem; padding: .1rem .6rem; cursor: pointer; }
td button { font-family: ui-monospace, monospace; font-size: .9rem; }
[popover] { white-space: normal; max-width: min(45rem, calc(100vw - 2rem)); padding: 1rem; text-align: left; color: var(--text); background: var(--back); border: 1px solid var(--edge); border-radius: .5rem; }
[popover]::backdrop { background: rgb(0 0 0 / 40%); }
.parts { max-width: 60rem; margin: .5rem 0; } .parts li { display: grid; align-items: center; gap: 0 1rem; padding: .3rem 0; font-variant-numeric: tabular-nums; }
.parts .name { overflow-wrap: anywhere; } .growth span:not(.name) { text-align: right; }
.growth li { grid-template-columns: 1fr 5rem 5.5rem 6rem 80px; } .legend li { grid-template-columns: 14px 1fr auto; }
meter { width: 100%; height: .9rem; }
.map { display: block; width: 100%; max-width: 60rem; margin: .5rem 0; }
${Array.from({ length: 12 }, (_, at) => `.o${at} { fill: var(--o${at}); }`).join(' ')}
@media (max-width: 40rem) {
th, td { padding-right: .4rem; font-size: .85rem; }
th:last-child, td:last-child { padding-right: 0; } td button { padding: .1rem .3rem; font-size: .8rem; }
.growth li { grid-template-columns: 5rem 5.5rem 1fr 80px; } .growth .name { grid-column: 1 / -1; } .growth span:not(.name) { text-align: left; }
.legend li { grid-template-columns: 14px 1fr; } .legend span:last-child { grid-column: 2; color: var(--dim); }
}
`;
