import { aged } from './quick.ts';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { generateDatabase } from '../../fixtures/generate.ts';
import { tempDir } from './compare.ts';
import type { OtherConnection } from './other-process.ts';
import { OtherProcess } from './other-process.ts';
import type { SyncHereOptions, SyncHereResult } from './sync.ts';

/** Call this after `prepareQuickTests`, before the sources are loaded: the databases of tests are small. */
export function keepAllTrees(): void {
  process.env['SQLSYNC_TREE_CACHE_MIN_BYTES'] = '0';
}

/** A sync, and what was known before it. */
export interface KnownSync extends SyncHereResult {
  /** Pages of the origin with new frames in the WAL; undefined if all pages were hashed. */
  readonly frames: number | undefined;
  /** True if the replica's hashes were known. */
  readonly isReplicaKnown: boolean;
  readonly warnings: readonly string[];
}

/** An origin in WAL mode that a program has open, and its replica. */
export class KnownPair {
  readonly origin: string;
  readonly replica: string;
  readonly t: TestContext;
  program: OtherProcess;
  #writer: OtherConnection | undefined;

  constructor(t: TestContext, rows = 1500) {
    const folder = tempDir(t);
    this.t = t;
    this.origin = join(folder, 'origin.db');
    this.replica = join(folder, 'replica.db');
    this.program = new OtherProcess(t);
    generateDatabase(this.origin, { rows });
  }

  /** The program's connection. */
  async writer(): Promise<OtherConnection> {
    return (this.#writer ??= await this.program.open(this.origin));
  }

  async exec(sql: string): Promise<void> {
    await (await this.writer()).exec(sql);
  }

  async close(): Promise<void> {
    await this.#writer?.call('close');
    this.#writer = undefined;
  }

  /** The program is killed; the next `exec` starts another one. */
  async kill(): Promise<void> {
    await this.program.end();
    this.#writer = undefined;
    this.program = new OtherProcess(this.t);
  }

  async sync(options: Partial<SyncHereOptions> = {}): Promise<KnownSync> {
    const { syncHere } = await import('./sync.ts');
    await aged(this.origin, this.replica);
    const notes: string[] = [];
    const { origin, replica } = this;
    const result = await syncHere({ origin, replica, ...options, onNote: (note) => notes.push(note) });
    const frames = notes.map((note) => /new frames in its WAL for (\d+) pages/.exec(note)?.[1]).find(Boolean);
    return {
      ...result,
      frames: frames === undefined ? undefined : Number(frames),
      isReplicaKnown: notes.some((note) => note.includes('is as an earlier run left it')),
      warnings: result.warnings,
    };
  }

  /** Makes the replica, and commits and syncs until the hashes of both sides are known. */
  async settle(): Promise<this> {
    const { syncHere } = await import('./sync.ts');
    await syncHere({ origin: this.origin, replica: this.replica });
    for (let round = 1; ; round++) {
      await this.exec(`UPDATE item SET amount = ${round} WHERE id = 1`);
      const { frames, isReplicaKnown } = await this.sync();
      if (frames !== undefined && isReplicaKnown) return this;
      if (round === 4) throw new Error('the hashes are not known after four syncs');
    }
  }
}

export function treesFolder(): string {
  return join(process.env['XDG_CACHE_HOME'] as string, 'sqlsync', 'trees');
}

/** Paths of the kept trees of one side. */
export function treeFiles(side: 'origin' | 'replica'): string[] {
  return readdirSync(treesFolder())
    .filter((name) => name.startsWith(side === 'origin' ? 'o-' : 'r-'))
    .map((name) => join(treesFolder(), name));
}
