import { prepareQuickTests } from '../support/quick.ts';
import assert from 'node:assert/strict';
import { readdirSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { loadQuickRecord, saveQuickRecord } from '../../src/sync/quick/quick-record.ts';
import type { QuickRecord } from '../../src/sync/quick/quick-record.ts';

prepareQuickTests({ after });

const folder = (): string => join(process.env['XDG_CACHE_HOME'] as string, 'sqlsync', 'quick');
const pair = (name: string): Parameters<typeof loadQuickRecord>[0] => ({
  replicaPath: `/srv/${name}.db`,
  originName: 'db1:/srv/app.db',
});
const RECORD: QuickRecord = {
  originStamp: '0a',
  replicaStamp: '0b',
  hash: 'nh-siphash',
  comparedAt: 5,
  files: '',
};

test('a record is that of one replica and one origin, and only its user can read it', () => {
  saveQuickRecord(pair('a'), RECORD);
  const { format, ...loaded } = loadQuickRecord(pair('a')) as QuickRecord & { format: number };
  assert.deepEqual([format, loaded], [1, RECORD]);
  assert.equal(loadQuickRecord(pair('b')), undefined);
  assert.equal(loadQuickRecord({ ...pair('a'), originName: 'db2:/srv/app.db' }), undefined);
  assert.equal(statSync(folder()).mode & 0o777, 0o700);
  for (const name of readdirSync(folder())) assert.equal(statSync(join(folder(), name)).mode & 0o777, 0o600);
});

test('a new record takes the place of the last one, and leaves no other file', () => {
  rmSync(folder(), { recursive: true });
  for (const comparedAt of [1, 2]) saveQuickRecord(pair('a'), { ...RECORD, comparedAt });
  assert.equal(loadQuickRecord(pair('a'))?.comparedAt, 2);
  assert.equal(readdirSync(folder()).length, 1);
});

test('records that are too old to count, and more than ten thousand, are removed', () => {
  rmSync(folder(), { recursive: true });
  saveQuickRecord(pair('a'), RECORD);
  const old = Date.now() / 1000 - 30 * 86_400;
  const name = (i: number): string => join(folder(), `${String(i).padStart(32, '0')}.json`);
  const foreign = join(folder(), 'notes.txt');
  for (const path of [name(1), `${name(1)}.0123456789ab.tmp`, foreign]) {
    writeFileSync(path, '');
    utimesSync(path, old, old);
  }
  saveQuickRecord(pair('b'), RECORD);
  assert.equal(readdirSync(folder()).length, 3, 'the two records, and a file that is none');
  const recent = Date.now() / 1000 - 3600;
  for (let i = 1; i <= 10_100; i++) {
    writeFileSync(name(i), '');
    utimesSync(name(i), recent, recent);
  }
  saveQuickRecord(pair('c'), RECORD);
  assert.equal(readdirSync(folder()).length, 10_001);
  for (const each of ['a', 'b', 'c']) assert.notEqual(loadQuickRecord(pair(each)), undefined);
});
