import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import Database from 'better-sqlite3';
import { REPLACEMENTS } from '../support/stamped-origin.ts';
import type { CommandEnd } from './command.ts';
import type { Soak } from './soak.ts';

/** One step: a fault in, before or beside a sync. Returns how the sync ended. */
export interface SoakFault {
  readonly name: string;
  /** How often it happens, in proportion to the others. */
  readonly weight: number;
  /** Nobody may rely on the replica from before: the step damaged it on purpose. */
  readonly damages?: boolean;
  readonly run: (soak: Soak, replica: string) => Promise<CommandEnd>;
}

const OWNER_ACTS = ['vacuum', 'recreate', 'truncate', 'restart', 'full', 'deleteEnd', 'insertMany'] as const;

/** The faults from which `npm run soak` picks. */
export const SOAK_FAULTS: readonly SoakFault[] = [
  { name: 'none', weight: 4, run: (soak, replica) => soak.startSync(replica).ended },
  { name: 'near agent killed', weight: 3, run: signalled('near', ['SIGKILL']) },
  { name: 'far agent killed', weight: 3, run: signalled('far', ['SIGKILL']) },
  { name: 'near agent interrupted', weight: 1, run: signalled('near', ['SIGTERM']) },
  { name: 'near agent stopped for a while', weight: 1, run: signalled('near', ['SIGSTOP', 'SIGCONT']) },
  { name: 'far agent stopped for a while', weight: 1, run: signalled('far', ['SIGSTOP', 'SIGCONT']) },
  { name: 'connection cut', weight: 2, run: cut },
  { name: 'disk full', weight: 2, run: diskFull },
  { name: 'garbage in part, spool and mark', weight: 1, run: garbage },
  { name: 'two syncs at once', weight: 2, run: twoAtOnce },
  { name: 'origin replaced', weight: 1, run: originReplaced },
  { name: 'VACUUM, checkpoints, DROP and CREATE at the origin', weight: 3, run: ownerActs },
  { name: 'replica absent', weight: 1, damages: true, run: absent },
  { name: 'replica in another journal mode', weight: 2, run: otherJournalMode },
  { name: 'replica written by somebody else', weight: 1, damages: true, run: written },
  { name: 'WAL of the replica removed', weight: 1, damages: true, run: walRemoved },
];

/** Signals at a random moment of a sync, with some time between them. */
function signalled(side: 'near' | 'far', signals: readonly NodeJS.Signals[]): SoakFault['run'] {
  return async (soak, replica) => {
    // The far agent of SSH is no child of a process here.
    const running = soak.startSync(replica, side === 'far' ? 'local' : undefined);
    await soak.pauseWithin(running);
    for (const signal of signals) {
      kill(side === 'near' ? running.nearPid : running.farPid(), signal);
      await delay(soak.random.integer(1, 300));
    }
    return running.ended;
  };
}

function kill(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended by itself.
  }
}

async function cut(soak: Soak, replica: string): Promise<CommandEnd> {
  const running = soak.startSync(replica, soak.random.pick(soak.commands.ways));
  await soak.pauseWithin(running);
  soak.commands.cut();
  return running.ended;
}

async function diskFull(soak: Soak, replica: string): Promise<CommandEnd> {
  const { disk } = soak;
  if (disk === undefined) return soak.startSync(replica).ended;
  // Space for nothing, for a part, and for a commit but not for the checkpoint.
  disk.fill(soak.random.integer(0, 1_500_000));
  try {
    return await soak.startSync(soak.replicaOnDisk).ended;
  } finally {
    disk.empty();
  }
}

function garbage(soak: Soak, replica: string): Promise<CommandEnd> {
  for (const suffix of ['-part', '-spool', '']) {
    const path = join(dirname(replica), `.${basename(replica)}.sqlsync${suffix}`);
    if (soak.random.chance(0.7)) writeFileSync(path, soak.random.bytes(soak.random.integer(0, 200_000)));
  }
  return soak.startSync(replica).ended;
}

async function twoAtOnce(soak: Soak, replica: string): Promise<CommandEnd> {
  const other = soak.startSync(replica);
  if (soak.random.chance(0.5)) await soak.pauseWithin(other);
  const end = await soak.startSync(replica).ended;
  const otherEnd = await other.ended;
  return end.status === 0 ? otherEnd : end;
}

async function originReplaced(soak: Soak, replica: string): Promise<CommandEnd> {
  const running = soak.startSync(replica);
  await soak.pauseWithin(running);
  await soak.replaceOrigin(soak.random.pick(REPLACEMENTS.filter((how) => how !== 'empty file')));
  return running.ended;
}

async function ownerActs(soak: Soak, replica: string): Promise<CommandEnd> {
  const running = soak.startSync(replica);
  for (let i = 0; i < 4; i++) {
    await soak.pauseWithin(running);
    await soak.origin.act(soak.random.pick(OWNER_ACTS));
  }
  return running.ended;
}

function absent(soak: Soak, replica: string): Promise<CommandEnd> {
  return soak.withoutReaders(() => {
    for (const suffix of ['', '-wal', '-shm', '-journal']) rmSync(replica + suffix, { force: true });
    return soak.startSync(replica).ended;
  });
}

function otherJournalMode(soak: Soak, replica: string): Promise<CommandEnd> {
  return soak.withoutReaders(() => {
    if (existsSync(replica)) {
      const mode = soak.random.pick(['wal', 'delete', 'truncate', 'persist']);
      withDatabase(replica, (database) => database.pragma(`journal_mode = ${mode}`));
    }
    return soak.startSync(replica).ended;
  });
}

function written(soak: Soak, replica: string): Promise<CommandEnd> {
  return soak.withoutReaders(() => {
    if (existsSync(replica)) {
      withDatabase(replica, (database) => {
        database.exec('CREATE TABLE IF NOT EXISTS foreign_rows (body BLOB)');
        database.prepare('INSERT INTO foreign_rows VALUES (?)').run(soak.random.bytes(50_000));
        database.exec('UPDATE cell SET stamp = -1 WHERE id % 3 = 0');
      });
    }
    return soak.startSync(replica).ended;
  });
}

/** While a reader has it open, so that it exists and holds the newest pages. */
function walRemoved(soak: Soak, replica: string): Promise<CommandEnd> {
  return soak.withoutReaders(async () => {
    if (existsSync(replica)) {
      const holder = new Database(replica, { readonly: true });
      holder.prepare('SELECT count(*) FROM sqlite_schema').get();
      await soak.startSync(replica).ended;
      holder.close();
    }
    for (const suffix of ['-wal', '-shm']) rmSync(replica + suffix, { force: true });
    return soak.startSync(replica).ended;
  });
}

function withDatabase(path: string, work: (database: Database.Database) => void): void {
  const database = new Database(path, { timeout: 5000 });
  try {
    work(database);
  } finally {
    database.close();
  }
}
