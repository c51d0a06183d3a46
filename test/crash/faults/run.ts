/**
 * The long run: `npm run faults` (`-- --group kill --filter rollback --seed 7` repeats a part of it,
 * `--short` takes what `npm test` takes). Prints the faults and their outcomes, and ends with status 1 if the
 * invariant of docs/reliability.md was broken.
 */
import { parseArgs } from 'node:util';
import type { FaultRow } from './group.ts';
import { FAULT_GROUPS } from './groups.ts';
import { faultTable } from './table.ts';

const { values } = parseArgs({
  options: {
    group: { type: 'string', multiple: true },
    filter: { type: 'string' },
    seed: { type: 'string' },
    short: { type: 'boolean', default: false },
  },
});
const names = values.group ?? Object.keys(FAULT_GROUPS);
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 32));
const rows: (FaultRow & { group: string })[] = [];
const broken: string[] = [];

for (const name of names) {
  const group = FAULT_GROUPS[name];
  if (group === undefined)
    throw new Error(`no group ${name}; there are ${Object.keys(FAULT_GROUPS).join(', ')}`);
  const startedAt = performance.now();
  for await (const row of group({ seed, long: !values.short, filter: values.filter })) {
    rows.push({ ...row, group: name });
    broken.push(...row.broken.map((breach) => `${name}: ${breach}`));
    console.error(`${name}: ${row.fault}: ${row.times} ${JSON.stringify(row.outcomes)}`);
  }
  console.error(`${name}: ${((performance.now() - startedAt) / 1000).toFixed(0)} s`);
}
console.log(`seed ${seed}\n\n${faultTable(rows)}`);
for (const breach of broken) console.log(`\nBROKEN (seed ${seed}) ${breach}`);
if (broken.length > 0 || rows.length === 0) process.exitCode = 1;
