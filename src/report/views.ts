import { counted, formatBytes, formatCount } from '../cli/terminal/format.ts';
import { escapeHtml, nameHtml, sparkline, timeHtml } from './html.ts';
import { mapHtml } from './map-html.ts';
import { grownBy } from './report.ts';
import type { DatabaseReport, Growth, Moment } from './report.ts';

/**
 * The views of one database: history, growth by table, map. `id` begins the ids of its elements, and `heading` is the
 * level of its headings. Pure.
 */
export function databaseHtml(database: DatabaseReport, id: string, heading: 2 | 3): string {
  const { moments, growth, map, remarks } = database;
  const title = (text: string): string => `<h${heading}>${text}</h${heading}>`;
  return [
    ...remarks.map((remark) => `<p>${escapeHtml(remark)}</p>`),
    ...(moments.length === 0 ? [] : [title('Snapshots'), historyHtml(database, id)]),
    ...(growth === undefined ? [] : [title('Growth by table and index'), growthHtml(growth)]),
    ...(map === undefined ? [] : [title('Pages that changed'), mapHtml(map)]),
  ].join('\n');
}

/** The newest first. */
function historyHtml({ moments, omitted }: DatabaseReport, id: string): string {
  const sizes = moments.map(({ sizeBytes }) => sizeBytes);
  const first = sizes[0] ?? 0;
  const line = sparkline(sizes, `Size from ${formatBytes(first)} to ${formatBytes(sizes.at(-1) ?? 0)}`);
  const rows = moments.map((moment, at) => momentHtml(moment, `${id}-${at}`)).toReversed();
  return `<p>${counted(moments.length + omitted, 'snapshot')}${omitted === 0 ? '' : `, the newest ${formatCount(moments.length)} here`} ${line}</p>
<div class="scroll" role="region" aria-label="Snapshots" tabindex="0"><table>
<thead><tr><th scope="col">Time</th><th scope="col">Size</th><th scope="col">Pages changed</th><th scope="col">Added</th><th scope="col">Restore</th></tr></thead>
<tbody>
${rows.join('\n')}
</tbody>
</table></div>`;
}

/** The command is in a popover, which needs no script: Enter opens it, Escape closes it. */
function momentHtml(
  { id, atMs, sizeBytes, pagesChanged, bytesAdded, restore }: Moment,
  place: string,
): string {
  const name = escapeHtml(id.slice(0, 8));
  return `<tr><th scope="row">${timeHtml(atMs)}</th><td>${formatBytes(sizeBytes)}</td><td>${formatCount(pagesChanged)}</td><td>${formatBytes(bytesAdded)}</td><td><button type="button" popovertarget="${place}" aria-label="Restore ${name}">${name}</button><div id="${place}" popover role="dialog" aria-label="Restore ${name}"><p>To restore the database as of ${timeHtml(atMs)}:</p><p><code tabindex="0">${escapeHtml(restore)}</code></p><p><button type="button" popovertarget="${place}" popovertargetaction="hide">Close</button></p></div></td></tr>`;
}

function growthHtml(growth: Growth): string {
  const { moments, parts } = growth;
  const most = Math.max(1, ...parts.map(({ bytes }) => bytes.at(-1) ?? 0));
  const rows = parts.map((part) => {
    const { name, bytes } = part;
    const [from = 0, to = 0] = [bytes[0], bytes.at(-1)];
    const by = grownBy(part);
    const says = `From ${formatBytes(from)} to ${formatBytes(to)}`;
    const how = by === 0 ? 'the same' : `${by < 0 ? '−' : '+'}${formatBytes(Math.abs(by))}`;
    const bar = `<meter min="0" max="${most}" value="${to}" aria-hidden="true"></meter>`;
    return `<li><span class="name">${nameHtml(name)}</span> <span>${formatBytes(to)}</span> <span>${how}</span> ${bar} ${sparkline(bytes, says)}</li>`;
  });
  const span = moments.map((moment) => escapeHtml(moment));
  return `<p>${span.length === 1 ? `As of ${span[0]}` : `From ${span[0]} to ${span.at(-1)}`}; what grew most comes first.</p>
<ul class="parts growth">
${rows.join('\n')}
</ul>`;
}
