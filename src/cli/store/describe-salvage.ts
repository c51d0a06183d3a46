import { formatClock } from '../../backup/snapshots/calendar-time.ts';
import type { RestoreSummary } from '../../backup/options.ts';
import type { SalvagedObject, SalvageReport } from '../../backup/types.ts';
import { sanitizeLine } from '../../errors.ts';
import { formatCount, formatPages } from '../terminal/format.ts';
import { formatTable } from '../terminal/table.ts';

/** Describes what a salvaged file lacks, and what to do with it. */
export function describeSalvage({ target, snapshot }: RestoreSummary, report: SalvageReport): string {
  const { pagesLost, objects, objectsWhole } = report;
  const of = `${snapshot.path} of ${formatClock(snapshot.time)} (${snapshot.id.slice(0, 8)})`;
  const lines = [
    `${target} has what is left of ${of}: ${formatCount(pagesLost)} of ${formatPages(snapshot.pageCount)} are lost`,
  ];
  if (objects.length > 0) {
    lines.push(
      formatTable(objects, [
        { title: 'Hit', cell: ({ name }: SalvagedObject) => sanitizeLine(name, 80) },
        { title: 'Kind', cell: kindOf },
        { title: 'Lost', cell: (object: SalvagedObject) => formatPages(object.pagesLost) },
        { title: '', cell: noteOf },
      ]),
    );
  }
  lines.push(`Tables and indexes that lost nothing: ${formatCount(objectsWhole)}`);
  lines.push(...schemaNotes(report));
  if (objects.some(({ type, isRebuilt }) => type === 'table' || (type === 'index' && !isRebuilt)))
    lines.push(
      'Where a page of a table is missing, reading it ends with "database disk image is malformed".',
      `\`sqlite3 ${target} .recover\` gets the rows on both sides of the gap; an older snapshot may have the rest.`,
    );
  return lines.join('\n');
}

function kindOf({ type, name, table }: SalvagedObject): string {
  if (type === 'index')
    return table === undefined || table === name ? 'index' : `index of ${sanitizeLine(table, 80)}`;
  return type === 'table' ? 'table' : '';
}

function noteOf({ type, isRebuilt }: SalvagedObject): string {
  if (isRebuilt) return 'made anew from its table';
  if (type === 'free') return 'held nothing';
  if (type === 'schema') return 'tables and indexes that were named there are missing';
  return type === 'unknown' ? 'belonged to what is hit' : '';
}

function schemaNotes({ schemaOf, isSchemaLost, isSchemaCertain }: SalvageReport): string[] {
  if (isSchemaLost)
    return [
      'The schema is lost, and no other snapshot has one, so that no table has a name; `.recover` of sqlite3 still finds rows.',
    ];
  if (schemaOf === undefined) return [];
  const from = `The schema is that of the snapshot ${schemaOf.slice(0, 8)}`;
  return [
    isSchemaCertain
      ? `${from}, which is the same.`
      : `${from}. If tables were made, dropped or vacuumed since, rows may stand under wrong names: compare them.`,
  ];
}
