import { formatBytes, formatCount, formatPages, formatShare } from '../cli/terminal/format.ts';
import { escapeHtml, nameHtml } from './html.ts';
import type { PageMap } from './page-map.ts';

/** Cells in a row. */
const COLUMNS = 64;

/** A cell without changes is a small square, a cell with changes fills its place: colours alone would not be seen by all. */
const INSET = 0.3;
const GAP = 0.06;

/** The map as a picture with one path for each owner, and the same as a list for those who do not see it. Pure. */
export function mapHtml(map: PageMap): string {
  const { from, to, pageSize, pageCount, pagesChanged, pagesPerCell, owners } = map;
  const share = formatShare(pagesChanged, pageCount);
  const says = `${formatPages(pagesChanged)} of ${formatCount(pageCount)} changed (${share}, ${formatBytes(pagesChanged * pageSize)})`;
  const cells = map.runs.reduce((sum, [, , count]) => sum + count, 0);
  const columns = Math.min(COLUMNS, Math.max(1, cells));
  const rows = Math.max(1, Math.ceil(cells / columns));
  const legend = owners.map(
    ({ name, pages, changed }, at) =>
      `<li><svg class="key" viewBox="0 0 1 1" width="14" height="14" aria-hidden="true"><path class="o${at}" d="${square(0, 0, GAP)}"/></svg> <span class="name">${nameHtml(name)}</span> <span>${changed === 0 ? 'unchanged' : `${formatCount(changed)} changed`} of ${formatPages(pages)}</span></li>`,
  );
  return `<p>${says}, from ${escapeHtml(from)} to ${escapeHtml(to)}.</p>
<svg class="map" viewBox="0 0 ${COLUMNS} ${rows}" role="img" aria-label="Map of the pages: ${says}">${pathsOf(map, columns)}</svg>
<p>${pagesPerCell === 1 ? 'A square is a page' : `A square is ${formatCount(pagesPerCell)} pages`}, in the order of the file; a small one has not changed.</p>
<ul class="parts legend">
${legend.join('\n')}
</ul>`;
}

function pathsOf({ runs, owners }: PageMap, columns: number): string {
  const paths = owners.map(() => '');
  let cell = 0;
  for (const [owner, isChanged, count] of runs)
    for (const end = cell + count; cell < end; cell++)
      paths[owner] += square(cell % columns, Math.floor(cell / columns), isChanged ? GAP : INSET);
  return paths.map((path, at) => (path === '' ? '' : `<path class="o${at}" d="${path}"/>`)).join('');
}

function square(column: number, row: number, inset: number): string {
  const side = +(1 - 2 * inset).toFixed(2);
  return `M${+(column + inset).toFixed(2)} ${+(row + inset).toFixed(2)}h${side}v${side}h-${side}z`;
}
