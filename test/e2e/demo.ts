import { fork, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Database from 'better-sqlite3';

/**
 * The demonstration of `npm run demo`: a database that a writer keeps committing to is copied, changes, is copied
 * again and compared, with the real command. `--rows N` sizes it.
 */

const CLI = join(import.meta.dirname, '..', '..', 'bin', 'sqlsync.js');
const WRITER = join(import.meta.dirname, 'demo-writer.ts');
const rowsAt = process.argv.indexOf('--rows');
const ROWS = rowsAt === -1 ? 200_000 : Number(process.argv[rowsAt + 1]);

const folder = mkdtempSync(join(tmpdir(), 'sqlsync-demo-'));
try {
  process.exitCode = await demonstrate();
} finally {
  rmSync(folder, { recursive: true, force: true });
}

async function demonstrate(): Promise<number> {
  say(`1. A database with ${ROWS.toLocaleString('en-US')} rows, and a writer that keeps committing to it.`);
  makeDatabase();
  const writer = fork(WRITER, [join(folder, 'app.db')]);
  await once(writer, 'message');
  say('2. Copy it while it is being written.');
  run('app.db', 'copy.db');
  say('3. It changed meanwhile; copy it again: only the difference crosses the wire.');
  run('app.db', 'copy.db');
  writer.send('stop');
  const [report] = (await once(writer, 'message')) as [{ commits: number; busy: number; worstMs: number }];
  await once(writer, 'exit');
  say(
    `4. The writer made ${report.commits.toLocaleString('en-US')} commits during that time, was refused ` +
      `${report.busy} times, and waited ${report.worstMs.toFixed(1)} ms at the worst.`,
  );
  say('5. The writer has stopped: copy once more, and compare every page.');
  run('app.db', 'copy.db');
  run('verify', 'app.db', 'copy.db');
  return report.busy === 0 ? 0 : 1;
}

function makeDatabase(): void {
  const database = new Database(join(folder, 'app.db'));
  database.pragma('journal_mode = WAL');
  database.exec('CREATE TABLE events (id INTEGER PRIMARY KEY, at REAL, kind TEXT, payload TEXT)');
  database.exec('CREATE INDEX events_kind ON events (kind, at)');
  const insert = database.prepare('INSERT INTO events (at, kind, payload) VALUES (?, ?, ?)');
  database.transaction(() => {
    for (let i = 0; i < ROWS; i++) insert.run(i / 10, `kind-${(i * 7919) % 97}`, `event ${i} `.repeat(12));
  })();
  database.close();
}

/** Runs the real command in the demo's folder and shows what it prints. */
function run(...args: string[]): void {
  process.stdout.write(`\n   $ sqlsync ${args.join(' ')}\n`);
  const { status, stdout } = spawnSync(process.execPath, [CLI, ...args], {
    cwd: folder,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  process.stdout.write(stdout.replace(/^/gm, '   ').trimEnd() + '\n');
  if (status !== 0) throw new Error(`sqlsync ${args.join(' ')} ended with exit status ${status}`);
}

function say(text: string): void {
  process.stdout.write(`\n${text}\n`);
}
