import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { Status, TargetStatus } from '../../src/service/state/judge.ts';
import { smallDatabase } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { Command, jsonLines, sqlsync, until } from '../cli/command.ts';
import type { CommandOptions, Run, Summary } from '../cli/command.ts';

/** What does not happen in this time does not happen any more. */
const PATIENCE_MS = 60_000;

/** A folder with a configuration, its databases, and the services that run with it. */
export class ServiceHere {
  readonly folder: string;
  readonly #t: TestContext;

  constructor(t: TestContext) {
    this.#t = t;
    this.folder = tempDir(t);
    mkdirSync(join(this.folder, 'copies'));
  }

  path(...names: string[]): string {
    return join(this.folder, ...names);
  }

  database(name: string, rows = 40): string {
    smallDatabase(this.path(name), { rows });
    return this.path(name);
  }

  /** Writes the configuration; its state lies in the folder. */
  configure(text: string): void {
    writeFileSync(this.path('sqlsync.yaml'), `state: state\nscan: 100ms\n${text}`);
  }

  /** Starts the service; resolves when it runs. */
  async start(options: CommandOptions = {}, ...words: string[]): Promise<Command> {
    const command = new Command(['run', '--json', ...words], { cwd: this.folder, ...options });
    this.#t.after(() => command.child.kill('SIGKILL'));
    await until(() => events(command, 'started').length > 0, command);
    return command;
  }

  /** Ends it as systemd does; it must end well. */
  async stop(command: Command): Promise<Run> {
    command.child.kill('SIGTERM');
    const run = await command.done;
    assert.equal(run.status, 0, `${run.signal} ${run.stdout}${run.stderr}`);
    return run;
  }

  async status(): Promise<Status & { readonly exitStatus: number | null }> {
    const run = await sqlsync(['status', '--json'], { cwd: this.folder });
    const last = jsonLines(run.stdout).at(-1) as unknown as Status & { type: string };
    assert.equal(last.type, 'summary', run.stdout);
    return { ...last, exitStatus: run.status };
  }

  /** The status of the target whose place ends so. */
  async target(place: string): Promise<TargetStatus> {
    const { targets } = await this.status();
    const found = targets.find(({ target }) => target.endsWith(place));
    assert.ok(found !== undefined, `${place} among ${targets.map(({ target }) => target).join(', ')}`);
    return found;
  }

  lines(name: string): string[] {
    return existsSync(this.path(name))
      ? readFileSync(this.path(name), 'utf8').split('\n').filter(Boolean)
      : [];
  }
}

/** The lines of this type that the service has printed. */
export function events(command: Command, type: string, place = ''): Summary[] {
  const whole = command.said.split('\n').filter((line) => line.startsWith('{') && line.endsWith('}'));
  return whole
    .map((line) => JSON.parse(line) as Summary)
    .filter((event) => event.type === type && ((event['target'] ?? '') as string).endsWith(place));
}

/** Waits for so many lines of this type. */
export function untilEvents(command: Command, type: string, place: string, count = 1): Promise<void> {
  return until(() => events(command, type, place).length >= count, command);
}

/** Waits for a condition that takes a command to look at. */
export async function eventually(happens: () => boolean | Promise<boolean>, what: string): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  while (!(await happens())) {
    if (performance.now() > deadline) assert.fail(`it did not happen: ${what}`);
    await delay(20);
  }
}
