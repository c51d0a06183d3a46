import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import { EXAMPLE } from '../../src/service/config/example.ts';
import { readConfig } from '../../src/service/config/read-config.ts';
import type { ServiceConfig } from '../../src/service/config/read-config.ts';
import { dueAfter, parseSchedule } from '../../src/service/config/schedule.ts';
import type { Schedule } from '../../src/service/config/schedule.ts';
import { jsonSchema } from '../../src/service/config/schema.ts';
import { toSqlsyncError } from '../../src/errors.ts';
import { tempDir } from '../support/compare.ts';
import { assertRefused, sqlsync, summaryOf } from '../cli/command.ts';
import { assertDocumented } from '../cli/store-here.ts';
import '../support/environment.ts';
import { WRONG_CONFIGS } from './wrong-configs.ts';

const ROOT = dirname(dirname(import.meta.dirname));

const MINUTE = 60_000;
const DAY = 86_400_000;

function read(folder: string, text: string, environment: NodeJS.ProcessEnv = {}): ServiceConfig {
  const file = join(folder, 'sqlsync.yaml');
  writeFileSync(file, text);
  return readConfig(file, environment);
}

describe('a configuration that is wrong', () => {
  for (const { what, text, faults } of WRONG_CONFIGS) {
    test(`${what} is refused with line, column, what was found and what is expected`, (t) => {
      const folder = tempDir(t);
      let message = '';
      try {
        read(folder, text);
      } catch (error) {
        const failure = toSqlsyncError(error);
        assert.equal(failure.code, 'CONFIG_INVALID', failure.message);
        message = failure.message;
      }
      const lines = message.split('\n');
      assert.equal(lines.length, faults.length, message);
      for (const [at, [line, column, found, expected]] of faults.entries()) {
        const [, place, saidFound = '', saidExpected = ''] =
          /sqlsync\.yaml:(\d+:\d+): (?:.*?: )?found (.*); expected (.*)$/.exec(lines[at] ?? '') ?? [];
        assert.equal(place, `${line}:${column}`, message);
        assert.match(saidFound, found);
        assert.match(saidExpected, expected);
      }
    });
  }

  test('there are at least 40 of them', () => assert.ok(WRONG_CONFIGS.length >= 40));

  test('the command reports every fault, with status 2', async (t) => {
    const folder = tempDir(t);
    writeFileSync(join(folder, 'sqlsync.yaml'), WRONG_CONFIGS.at(-1)?.text ?? '');
    const expected = {
      code: 'CONFIG_INVALID',
      status: 2,
      says: /sqlsync\.yaml:3:15:[^]*sqlsync\.yaml:7:9:/,
    } as const;
    await assertRefused(['config', 'check'], expected, { cwd: folder });
  });

  test('a file that is not there, is a folder, or is not text is refused', (t) => {
    const folder = tempDir(t);
    assert.throws(() => readConfig(join(folder, 'none.yaml')), {
      code: 'CONFIG_INVALID',
      message: /does not exist/,
    });
    assert.throws(() => readConfig(folder), { code: 'CONFIG_INVALID', message: /cannot be read \(EISDIR\)/ });
    const file = join(folder, 'a.yaml');
    writeFileSync(file, Buffer.from([0x61, 0xff, 0x62]));
    assert.throws(() => readConfig(file), { code: 'CONFIG_INVALID', message: /not UTF-8/ });
  });

  test('a fault shows a variable and never its value, which may be a secret', (t) => {
    const text = 'databases:\n  - path: /a.db\n    schedule: ${WHEN}\n    targets: [{ replica: /b.db }]\n';
    assert.throws(
      () => read(tempDir(t), text, { WHEN: 'hunter2' }),
      ({ message }: Error) => message.includes('"${WHEN}"') && !message.includes('hunter2'),
    );
  });
});

describe('a configuration that is right', () => {
  test('the example is right, and the command says so', async (t) => {
    const folder = tempDir(t);
    const example = await sqlsync(['config', 'example']);
    assert.equal(example.stdout, EXAMPLE);
    const file = join(folder, 'example.yaml');
    writeFileSync(file, EXAMPLE.replace(/^ *ping-file.*\n/m, ''));
    const summary = await summaryOf(['config', 'check', '-c', file]);
    assertDocumented('config', summary);
    assert.deepEqual([summary['databases'], summary['targets']], [3, 4]);
  });

  test('targets take what their database says, and say otherwise for themselves', (t) => {
    const folder = tempDir(t);
    const { databases, concurrency } = read(
      folder,
      [
        'databases:',
        '  - path: a.db',
        '    schedule: 15m',
        '    hooks: { before: one, failure: two }',
        '    targets:',
        '      - replica: copy.db',
        '      - store: store',
        "        schedule: '@daily'",
        '        verify: weekly',
        '        keep: { daily: 7, tag: [a, b] }',
        '        hooks: { before: three }',
        '        options: { tag: x, port: 2222, no-cache: true }',
      ].join('\n'),
    );
    assert.equal(concurrency, 2);
    const [replica, store] = databases[0]?.targets ?? [];
    assert.equal(databases[0]?.origin, join(folder, 'a.db'));
    assert.deepEqual([replica?.kind, replica?.place], ['replica', join(folder, 'copy.db')]);
    assert.deepEqual(replica?.schedule, { kind: 'interval', text: '15m', everyMs: 15 * MINUTE });
    assert.deepEqual(replica?.hooks, { before: 'one', after: undefined, failure: 'two', timeout: undefined });
    assert.deepEqual([store?.kind, store?.place], ['store', join(folder, 'store')]);
    assert.deepEqual([store?.schedule.kind, store?.verifyMs], ['cron', 7 * DAY]);
    assert.deepEqual(store?.hooks, { before: 'three', after: undefined, failure: 'two', timeout: undefined });
    assert.deepEqual(store?.keep, { daily: '7', tag: ['a', 'b'] });
    assert.deepEqual(store?.options, { tag: ['x'], port: '2222', 'no-cache': true });
  });

  test('variables of the environment stand for their values, and $${ for itself', (t) => {
    const text =
      'databases:\n  - path: ${DIR}/a.db\n    schedule: ${WHEN}\n    targets: [{ replica: "/$${DIR}/b.db" }]\n';
    const [database] = read(tempDir(t), text, { DIR: '/srv', WHEN: '1h' }).databases;
    assert.equal(database?.origin, '/srv/a.db');
    assert.equal(database.targets[0]?.place, '/${DIR}/b.db');
    assert.equal(database.targets[0]?.schedule.text, '1h');
  });

  test('anchors stand for what they name', (t) => {
    const text =
      'databases:\n  - path: /a.db\n    schedule: 1h\n    hooks: &h { failure: x }\n    targets: [{ replica: /b.db }]\n' +
      '  - path: /c.db\n    schedule: 1h\n    hooks: *h\n    targets: [{ replica: /d.db }]\n';
    const { databases } = read(tempDir(t), text);
    assert.equal(databases[1]?.targets[0]?.hooks.failure, 'x');
  });

  test('the folder of a watched folder is taken by its name, also with characters of patterns in it', (t) => {
    const folder = tempDir(t);
    const text = `databases:\n  - folder: "${folder}/[a]*"\n    schedule: 1h\n    targets: [{ replica: "/b/{name}" }]\n`;
    const [database] = read(folder, text).databases;
    assert.equal(database?.origin, `${folder}/\\[a\\]\\*/*`);
    assert.equal(database.isPattern, true);
  });
});

describe('the JSON Schema', () => {
  test('docs/config.schema.json is what the command prints', async () => {
    const { stdout } = await sqlsync(['config', 'schema']);
    assert.deepEqual(JSON.parse(stdout), jsonSchema());
    const published = readFileSync(join(ROOT, 'docs', 'config.schema.json'), 'utf8');
    assert.deepEqual(JSON.parse(published), jsonSchema(), 'sqlsync config schema > docs/config.schema.json');
  });

  test('it describes every field', () => {
    const lacking: string[] = [];
    const look = (schema: object, path: string): void => {
      const {
        properties = {},
        items,
        anyOf = [],
      } = schema as {
        properties?: Record<string, { description?: string }>;
        items?: object;
        anyOf?: object[];
      };
      for (const [name, each] of Object.entries(properties)) {
        if ((each.description ?? '') === '') lacking.push(`${path}.${name}`);
        look(each, `${path}.${name}`);
      }
      for (const each of [items ?? [], anyOf].flat()) look(each, path);
    };
    look(jsonSchema(), '');
    assert.deepEqual(lacking, []);
  });
});

describe('a schedule', () => {
  const schedule = (text: string): Schedule => {
    const parsed = parseSchedule(text);
    assert.ok(parsed !== undefined, text);
    return parsed;
  };

  test('an interval is due once, however long ago its last run is', () => {
    assert.equal(dueAfter(schedule('15m'), 1000, 0), 1000 + 15 * MINUTE);
    assert.equal(dueAfter(schedule('90'), 1000, 5000), 91_000);
  });

  test('a cron expression is due at its next moment by the clock here, and as much later as it is spread', () => {
    const last = new Date(2026, 10, 20, 4, 0).getTime();
    const next = new Date(2026, 10, 21, 3, 0).getTime();
    assert.equal(dueAfter(schedule('0 3 * * *'), last, 0), next);
    assert.equal(dueAfter(schedule('0 3 * * *'), last, 30_000), next + 30_000);
    // A run at the very moment is followed by that of the next day.
    assert.equal(dueAfter(schedule('0 3 * * *'), next + 30_000, 30_000), next + DAY + 30_000);
    assert.equal(dueAfter(schedule('@hourly'), next + 1, 0), next + 60 * MINUTE);
  });

  test('in the nights when clocks change no moment is left out, and none comes twice', () => {
    const program = `
      import { dueAfter, parseSchedule } from './src/service/config/schedule.ts';
      const schedule = parseSchedule('30 2,14 * * *');
      for (let [at, end] of [[Date.UTC(2026, 2, 28, 20), Date.UTC(2026, 2, 29, 20)], [Date.UTC(2026, 9, 24, 20), Date.UTC(2026, 9, 25, 20)]])
        for (at = dueAfter(schedule, at, 0); at < end; at = dueAfter(schedule, at, 0)) console.log(new Date(at).toISOString());
    `;
    const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
      cwd: ROOT,
      env: { ...process.env, TZ: 'Europe/Berlin' },
      encoding: 'utf8',
    });
    const moments = ['2026-03-29T01:30', '2026-03-29T12:30', '2026-10-25T00:30', '2026-10-25T13:30'];
    assert.deepEqual(stdout.match(/\d{4}-\d\d-\d\dT\d\d:\d\d/g)?.slice(1), moments.slice(1), stderr);
    assert.match(stdout, /^2026-03-29T01:[03]0/);
  });

  test('a replica that follows is never due', () =>
    assert.equal(dueAfter(schedule('follow'), 0, 0), Infinity));
});
