import type { Facts } from '../facts.ts';
import { SEVERITIES } from '../finding.ts';
import type { Finding } from '../finding.ts';
import { judgeLocks } from './locks.ts';
import { judgeSettings } from './settings.ts';
import { judgeWal } from './wal.ts';
import { finding, shellWord } from './words.ts';

/** What is wrong, by the facts alone; worst first. */
export function judge(facts: Facts): Finding[] {
  const found = [...judgeHealth(facts), ...judgeLocks(facts), ...judgeWal(facts), ...judgeSettings(facts)];
  const rank = ({ severity }: Finding): number => SEVERITIES.indexOf(severity);
  return found.sort((a, b) => rank(a) - rank(b));
}

const MAX_SHOWN = 10;

function judgeHealth(facts: Facts): Finding[] {
  const { database, header, health, full, path } = facts;
  if (header === undefined && database.looksRandom)
    return [
      finding('advice', 'not-a-database', 'The file does not begin as a database does, and looks encrypted', {
        meaning:
          'A database of SQLCipher or SEE looks like this, and doctor sees nothing of what is in it. A file that never was encrypted was overwritten.',
        mend: 'Open it with its key, in the program that it belongs to.',
      }),
    ];
  if (header === undefined && database.bytes > 0)
    return [
      finding('danger', 'not-a-database', 'The file does not begin as a database does', {
        meaning: 'Another program wrote to it, or it never was a database.',
        mend: 'Keep a copy of it and of all files beside it, then restore it from a backup: sqlsync restore STORE TARGET',
      }),
    ];
  const recover = `Keep a copy of all its files, restore a backup, or save what can be saved: sqlite3 ${shellWord(path)} .recover > saved.sql`;
  const found: Finding[] = [];
  const faults = [...health.problems, ...(full?.faults ?? [])];
  if (faults.length > 0)
    found.push(
      finding('danger', 'damaged', `The database is damaged: ${shown(faults)}`, {
        meaning: 'Queries may fail or give wrong rows, and writing makes it worse.',
        mend: recover,
      }),
    );
  const broken = full?.brokenReferences ?? [];
  if (broken.length > 0)
    found.push(
      finding(
        'advice',
        'broken-references',
        `Foreign keys lead nowhere: ${shown(broken.map(({ table, parent, rows }) => `${rows} rows of ${table} to ${parent}`))}`,
        {
          meaning:
            'Rows were written while PRAGMA foreign_keys was off, as it is by default in each new connection.',
          mend: 'PRAGMA foreign_key_check lists the rows. Set PRAGMA foreign_keys = ON in each connection (the pools do).',
        },
      ),
    );
  return found;
}

function shown(lines: readonly string[]): string {
  const hidden = lines.length - MAX_SHOWN;
  return `${lines.slice(0, MAX_SHOWN).join('; ')}${hidden > 0 ? `; and ${hidden} more` : ''}`;
}
