import assert from 'node:assert/strict';
import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { readConfig } from '../../src/service/config/read-config.ts';
import { JobLister } from '../../src/service/jobs/job-list.ts';
import type { JobList } from '../../src/service/jobs/job-list.ts';
import { TargetStates } from '../../src/service/run/target-states.ts';
import { tempDir } from '../support/compare.ts';
import '../support/environment.ts';

const NOW = 1_800_000_000_000;
const RESULT = { bytes: 1, pagesChanged: 1, durationMs: 1, sizeBytes: 4096, snapshot: undefined };

/** A folder with a configuration, and what a service would remember of it. */
class Listing {
  readonly folder: string;
  readonly states: TargetStates;
  readonly #lister = new JobLister();

  constructor(t: TestContext, text: string) {
    this.folder = tempDir(t);
    writeFileSync(join(this.folder, 'c.yaml'), text);
    this.states = new TargetStates(join(this.folder, 'state'), this.#config, NOW, assert.fail);
  }

  get #config(): ReturnType<typeof readConfig> {
    return readConfig(join(this.folder, 'c.yaml'));
  }

  /** An empty file is a database. */
  make(...names: string[]): void {
    for (const name of names) {
      mkdirSync(dirname(join(this.folder, name)), { recursive: true });
      writeFileSync(join(this.folder, name), '');
    }
  }

  configure(text: string): void {
    writeFileSync(join(this.folder, 'c.yaml'), text);
  }

  look(atMs: number = NOW): JobList {
    const list = this.#lister.list(this.#config, this.states.memory);
    this.states.take(list, this.#config, atMs);
    return list;
  }

  /** Each database, with the code of what keeps it from being copied. */
  origins(list: JobList = this.look()): string[] {
    return list.jobs
      .map(({ origin, error }) => `${this.short(origin)}${error === undefined ? '' : ` ${error.code}`}`)
      .sort();
  }

  short(path: string): string {
    return path.replace(`${this.folder}/`, '');
  }

  /** As if the copy of this database had been made. */
  copied(name: string): void {
    const job = this.look().jobs.find(({ origin }) => origin === join(this.folder, name));
    assert.ok(job !== undefined);
    this.states.started(job.id, NOW);
    this.states.succeeded(job, RESULT, NOW);
  }
}

function entryOf(path: string, replica: string, more = 'schedule: 1h'): string {
  return `databases: [{ path: '${path}', ${more}, targets: [{ replica: '${replica}' }] }]\nscan: 10ms\n`;
}

describe('the databases of a pattern', () => {
  test('a database that one look misses keeps its jobs, and has gone only after several', async (t) => {
    const here = new Listing(t, entryOf('in/*.db', '/b/{name}'));
    here.make('in/a.db', 'in/b.db');
    here.copied('in/a.db');
    here.copied('in/b.db');
    renameSync(join(here.folder, 'in/a.db'), join(here.folder, 'away'));
    const list = here.look();
    assert.deepEqual(here.origins(list), ['in/a.db', 'in/b.db']);
    assert.equal(list.missing.size, 1);
    renameSync(join(here.folder, 'away'), join(here.folder, 'in/a.db'));
    assert.equal(here.look().missing.size, 0);
    rmSync(join(here.folder, 'in/a.db'));
    while (here.look().jobs.length > 1) await delay(5);
    assert.deepEqual(
      [...here.states.memory.values()].map(({ isGone }) => String(isGone)).sort(),
      ['false', 'true'],
      'what is known of it is kept',
    );
  });

  test('looks in quick succession do not make a database gone', (t) => {
    const here = new Listing(t, entryOf('in/*.db', '/b/{name}').replace('10ms', '1h'));
    here.make('in/a.db');
    here.look();
    rmSync(join(here.folder, 'in/a.db'));
    for (let look = 0; look < 10; look++) assert.deepEqual(here.origins(), ['in/a.db']);
  });

  test('a folder that is not there is a failure, and its databases have not gone', async (t) => {
    const here = new Listing(t, entryOf('in/*.db', '/b/{name}'));
    here.make('in/a.db');
    here.copied('in/a.db');
    renameSync(join(here.folder, 'in'), join(here.folder, 'away'));
    for (let look = 0; look < 6; look++, await delay(10)) {
      const { jobs, missing, entries } = here.look();
      assert.deepEqual([jobs.length, missing.size, entries[0]?.level], [1, 1, 'failing']);
      assert.match(entries[0]?.why ?? '', /The folder .*\/in is not there/);
    }
    const again = new JobLister();
    const config = readConfig(join(here.folder, 'c.yaml'));
    here.states.take(again.list(config, here.states.memory), config, NOW);
    assert.deepEqual(
      [...here.states.memory.values()].map(({ isGone }) => isGone),
      [false],
    );
  });

  test('a pattern without a match is late, and one with a match is fine', (t) => {
    const here = new Listing(t, entryOf('in/*.db', '/b/{name}'));
    mkdirSync(join(here.folder, 'in'));
    const [entry] = here.look().entries;
    assert.deepEqual([entry?.level, entry?.databases], ['late', 0]);
    here.make('in/a.db', 'in/b.db');
    const [found] = here.look().entries;
    assert.deepEqual([found?.level, found?.databases], ['fine', 2]);
  });

  test('files that come and go beside them do not disturb them', (t) => {
    const here = new Listing(t, entryOf('in/*', '/b/{name}'));
    here.make('in/a.db');
    here.look();
    const spoil = join(here.folder, 'in/zz.tmp');
    // The memory is asked about each file that is no database: the file goes at that moment.
    const memory = new Map(here.states.memory);
    memory.get = (id) => {
      rmSync(spoil, { force: true });
      return here.states.memory.get(id);
    };
    writeFileSync(spoil, 'no database');
    const config = readConfig(join(here.folder, 'c.yaml'));
    const { jobs, entries } = new JobLister().list(config, memory);
    assert.deepEqual(
      [jobs.map(({ origin }) => here.short(origin)), entries[0]?.level],
      [['in/a.db'], 'fine'],
    );
  });

  test('a damaged database of any name below a link is a failure, and has not gone', (t) => {
    const here = new Listing(t, entryOf('link/*', '/b/{name}'));
    here.make('real/cookies');
    symlinkSync(join(here.folder, 'real'), join(here.folder, 'link'));
    here.copied('link/cookies');
    writeFileSync(join(here.folder, 'real/cookies'), 'sixteen bytes of something else');
    assert.deepEqual(here.origins(), ['link/cookies ORIGIN_NOT_A_DATABASE']);
  });

  test('a file with the name of the pattern itself does not stand for all others', (t) => {
    const here = new Listing(t, entryOf('in/*.db', '/b/{name}'));
    here.make('in/a.db', 'in/*.db');
    assert.deepEqual(here.origins(), ['in/*.db', 'in/a.db']);
  });
});

describe('places of replicas', () => {
  test('a database that comes later does not get the place of one that has a copy there', (t) => {
    const here = new Listing(t, entryOf('in/*/app.db', '/b/{name}'));
    here.make('in/b/app.db');
    here.copied('in/b/app.db');
    here.make('in/a/app.db');
    assert.deepEqual(here.origins(), ['in/a/app.db CONFIG_INVALID', 'in/b/app.db']);
  });

  test('nor does it when that one has gone', async (t) => {
    const here = new Listing(t, entryOf('in/*/app.db', '/b/{name}'));
    here.make('in/b/app.db');
    here.copied('in/b/app.db');
    here.make('in/a/app.db');
    rmSync(join(here.folder, 'in/b/app.db'));
    while (here.look().jobs.length > 1) await delay(5);
    assert.deepEqual(here.origins(), ['in/a/app.db CONFIG_INVALID']);
    here.configure(entryOf('in/a/app.db', '/b/app.db'));
    assert.deepEqual(
      here.origins(here.look()),
      ['in/a/app.db'],
      'unless the file does not ask for it any more',
    );
  });

  test('of several that come together none gets the place', (t) => {
    const here = new Listing(t, entryOf('in/*/app.db', '/b/{name}'));
    here.make('in/a/app.db', 'in/b/app.db', 'in/b/other.db');
    for (let look = 0; look < 3; look++)
      assert.deepEqual(here.origins(), ['in/a/app.db CONFIG_INVALID', 'in/b/app.db CONFIG_INVALID']);
  });

  test('names do not lead out of the folder of the replicas', (t) => {
    const here = new Listing(t, entryOf('in/*', '/b/{name}/db'));
    const names = ['$$.db', '$&', "$'", '$`..$`', '..db', 'a\nb'];
    here.make(...names.map((name) => `in/${name}`));
    const places = here.look().jobs.map(({ target }) => target.place);
    // Only a dot matches a leading dot.
    assert.deepEqual(
      places.sort(),
      names
        .filter((name) => !name.startsWith('.'))
        .map((name) => `/b/${name}/db`)
        .sort(),
    );
  });

  test('copies in the watched folder are no databases of their own, by way of other entries neither', (t) => {
    const here = new Listing(t, entryOf('in/**/*.db', 'in/copy-{name}').replace("'in/**", "'i[n]/**"));
    here.make('in/a.db', 'in/copy-a.db', 'in/copy-copy-a.db');
    assert.deepEqual(here.origins(), ['in/a.db']);
    const other = new Listing(
      t,
      `databases:
  - { path: 'in/*.db', schedule: 1h, targets: [{ replica: 'out/{name}' }] }
  - { path: 'out/*.db', schedule: 1h, targets: [{ replica: 'link/copy-{name}' }] }
`,
    );
    other.make('in/a.db', 'out/a.db', 'in/copy-a.db');
    symlinkSync(join(other.folder, 'in'), join(other.folder, 'link'));
    assert.deepEqual(other.origins(), ['in/a.db', 'out/a.db']);
  });

  test('two entries for one copy are told of, and the first counts', (t) => {
    const target = "targets: [{ replica: '/b/a.db' }]";
    const here = new Listing(
      t,
      `databases:\n  - { path: a.db, schedule: 1h, ${target} }\n  - { path: '*.db', schedule: 2h, ${target.replace('a.db', '{name}')} }\n`,
    );
    here.make('a.db');
    const { jobs, entries } = here.look();
    assert.deepEqual(
      jobs.map(({ target: { schedule } }) => schedule.text),
      ['1h'],
    );
    assert.match(entries.at(-1)?.why ?? '', /is in two entries/);
  });
});
