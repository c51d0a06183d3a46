import assert from 'node:assert/strict';
import { readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { exitStatusOf } from '../../src/cli/terminal/exit.ts';
import { Copies } from '../../src/cli/job/copies.ts';
import { writeMetrics } from '../../src/cli/job/metrics.ts';
import type { CopyFigures, CopyRun } from '../../src/cli/job/metrics.ts';
import { tempDir } from '../support/compare.ts';
import { parseMetrics } from './metrics.ts';

const FIGURES: CopyFigures = {
  snapshotAtMs: 1_700_000_000_250,
  snapshotHeldMs: 1500,
  bytesSent: 10,
  bytesReceived: 2 ** 40,
  pageSize: 4096,
  pageCount: 1000,
  pagesChanged: 0,
  walGrowthBytes: 1e21,
};

const LABELS = { command: 'sync', origin: 'app.db', replica: 'copy.db' };

function run(endedAtMs: number, exitStatus: number, labels: CopyRun['labels'] = LABELS): CopyRun {
  return { labels, endedAtMs, durationMs: 2000, exitStatus, figures: exitStatus === 0 ? FIGURES : undefined };
}

function values(path: string): Record<string, number> {
  return Object.fromEntries(parseMetrics(readFileSync(path, 'utf8')).map(({ name, value }) => [name, value]));
}

describe('metrics', () => {
  test('metrics of a success are times in seconds and sizes in bytes', (t) => {
    const path = join(tempDir(t), 'a.prom');
    writeMetrics(path, [run(1_700_000_002_500, 0)]);
    assert.deepEqual(values(path), {
      sqlsync_last_run_timestamp_seconds: 1_700_000_002.5,
      sqlsync_last_run_duration_seconds: 2,
      sqlsync_last_run_exit_status: 0,
      sqlsync_last_success_timestamp_seconds: 1_700_000_002.5,
      sqlsync_snapshot_timestamp_seconds: 1_700_000_000.25,
      sqlsync_snapshot_held_seconds: 1.5,
      sqlsync_sent_bytes: 10,
      sqlsync_received_bytes: 2 ** 40,
      sqlsync_database_bytes: 4_096_000,
      sqlsync_database_pages: 1000,
      sqlsync_changed_pages: 0,
      sqlsync_wal_growth_bytes: 1e21,
    });
  });

  test('metrics of a failure keep the figures of the last success', (t) => {
    const path = join(tempDir(t), 'a.prom');
    writeMetrics(path, [run(1_700_000_000_000, 0)]);
    const before = values(path);
    writeMetrics(path, [run(1_700_000_100_000, 15)]);
    assert.deepEqual(values(path), {
      ...before,
      sqlsync_last_run_timestamp_seconds: 1_700_000_100,
      sqlsync_last_run_exit_status: 15,
      sqlsync_last_failure_timestamp_seconds: 1_700_000_100,
    });
    writeMetrics(path, [run(1_700_000_200_000, 0)]);
    const after = values(path);
    assert.equal(after['sqlsync_last_failure_timestamp_seconds'], 1_700_000_100);
    assert.equal(after['sqlsync_last_success_timestamp_seconds'], 1_700_000_200);
  });

  test('metrics of a first run that failed have no success', (t) => {
    const path = join(tempDir(t), 'a.prom');
    writeMetrics(path, [run(1_700_000_000_000, 3)]);
    assert.deepEqual(Object.keys(values(path)), [
      'sqlsync_last_run_timestamp_seconds',
      'sqlsync_last_run_duration_seconds',
      'sqlsync_last_run_exit_status',
      'sqlsync_last_failure_timestamp_seconds',
    ]);
  });

  test('metrics have labels of any text, and find them again', (t) => {
    const path = join(tempDir(t), 'a.prom');
    const text = fc.oneof(
      fc.string(),
      fc.string({ unit: fc.constantFrom('"', '\\', '\n', 'n', '}', '{', ',', '\r', '\ud800') }),
    );
    fc.assert(
      fc.property(text, text, (origin, replica) => {
        const labels = { command: 'sync', origin, replica };
        writeMetrics(path, [run(1_700_000_000_000, 0, labels)]);
        assert.deepEqual(writeMetrics(path, [run(1_700_000_001_000, 5, labels)]), []);
        const samples = parseMetrics(readFileSync(path, 'utf8'));
        const wellFormed = {
          command: 'sync',
          origin: origin.toWellFormed(),
          replica: replica.toWellFormed(),
        };
        for (const sample of samples) assert.deepEqual(sample.labels, wellFormed);
        assert.ok(samples.some(({ name }) => name === 'sqlsync_last_success_timestamp_seconds'));
      }),
    );
  });

  test('metrics of several copies stand together by their names', (t) => {
    const path = join(tempDir(t), 'a.prom');
    const second = { ...LABELS, origin: 'b.db' };
    writeMetrics(path, [run(1_700_000_000_000, 0), run(1_700_000_000_000, 4, second)]);
    writeMetrics(path, [run(1_700_000_100_000, 4), run(1_700_000_100_000, 0, second)]);
    const samples = parseMetrics(readFileSync(path, 'utf8'));
    const successes = samples.filter(({ name }) => name === 'sqlsync_last_success_timestamp_seconds');
    assert.deepEqual(
      successes.map(({ labels, value }) => [labels['origin'], value]),
      [
        ['app.db', 1_700_000_000],
        ['b.db', 1_700_000_100],
      ],
    );
  });

  test('metrics report the series of other jobs that they replace', (t) => {
    const path = join(tempDir(t), 'a.prom');
    writeMetrics(path, [run(1_700_000_000_000, 0)]);
    assert.deepEqual(writeMetrics(path, [run(1_700_000_000_000, 0, { command: 'sync', origin: 'b.db' })]), [
      '{command="sync",origin="app.db",replica="copy.db"}',
    ]);
  });

  test('metrics replace the file at once: a reader has the old or the new one, and nothing else is left beside it', (t) => {
    const folder = tempDir(t);
    const path = join(folder, 'a.prom');
    writeFileSync(path, 'no metrics at all\nsqlsync_last_success_timestamp_seconds{} never\n');
    const { ino } = statSync(path);
    writeMetrics(path, [run(1_700_000_000_000, 7)]);
    assert.notEqual(statSync(path).ino, ino);
    assert.deepEqual(readdirSync(folder), ['a.prom']);
    assert.equal(statSync(path).mode & 0o777, 0o644 & ~process.umask());
    assert.throws(() => writeMetrics(join(folder, 'none', 'a.prom'), [run(0, 0)]), { code: 'ENOENT' });
    assert.throws(() => writeMetrics(folder, [run(0, 0)]), { code: 'EISDIR' });
    assert.deepEqual(readdirSync(folder), ['a.prom']);
  });
});

describe('the copies of a run', () => {
  const [a, b] = [{ origin: 'a.db' }, { origin: 'b.db' }];
  const made = { labels: a, exitStatus: 0, durationMs: 1, figures: FIGURES };

  test('a run has the exit status of its failed copy, or one that says that some copies failed', () => {
    const copies = new Copies([a, b]);
    assert.equal(copies.exitStatus, 0);
    copies.report({ ...made, exitStatus: 3, figures: undefined });
    assert.equal(copies.exitStatus, 3);
    copies.report({ ...made, labels: b });
    assert.equal(copies.exitStatus, exitStatusOf('BACKUP_PARTIAL'));
  });

  test('a run that was ended reports all its copies, and loses none that was made', () => {
    const copies = new Copies([a]);
    copies.expect([a, b]);
    copies.report(made);
    assert.deepEqual(copies.endedBy(130, 500), [
      { ...made, exitStatus: 130 },
      { labels: b, exitStatus: 130, durationMs: 500, figures: undefined },
    ]);
  });
});
