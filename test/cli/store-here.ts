import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { smallDatabase } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { sqlsync, summaryOf } from './command.ts';
import type { Summary } from './command.ts';
import { MANUAL } from './reference.ts';

const REFERENCE = readFileSync(MANUAL, 'utf8');

export interface Here {
  readonly folder: string;
  /** Runs the command in the folder with --json; returns its summary. */
  readonly run: (...args: string[]) => Promise<Summary>;
  /** The output for people on stdout. */
  readonly say: (...args: string[]) => Promise<string>;
}

/** A folder with the databases a.db and b.db and the empty store `store`. */
export async function here(t: TestContext): Promise<Here> {
  const folder = tempDir(t);
  smallDatabase(join(folder, 'a.db'));
  smallDatabase(join(folder, 'b.db'), { rows: 50 });
  const run = async (...args: string[]): Promise<Summary> => {
    const summary = await summaryOf(args, { cwd: folder });
    assertDocumented(args[0] as string, summary);
    return summary;
  };
  await run('init', 'store', '--grace', '0');
  return {
    folder,
    run,
    async say(...args) {
      const { status, stdout, stderr } = await sqlsync(args, { cwd: folder });
      assert.equal(status, 0, stderr);
      return stdout;
    },
  };
}

/** Programs rely on the names of docs/cli.md in the summaries. */
export function assertDocumented(command: string, summary: Summary): void {
  const section = new RegExp(`^### ${command}$([^]*?)(?=^##+ )`, 'm').exec(REFERENCE)?.[1] ?? '';
  const fields = /^The summary of `--json` has ([^]*?)\.$/m.exec(section)?.[1];
  assert.ok(fields !== undefined, `docs/cli.md tells the summary of ${command}`);
  for (const name of Object.keys(summary))
    if (name !== 'type') assert.ok(fields.includes(`\`${name}\``), `${command}: ${name} is in docs/cli.md`);
}

export interface Listed {
  readonly id: string;
  readonly path: string;
  readonly tags: readonly string[];
  readonly host: string;
}

export async function listed({ run }: Here, ...filter: string[]): Promise<Listed[]> {
  return (await run('snapshots', 'store', ...filter))['snapshots'] as Listed[];
}
