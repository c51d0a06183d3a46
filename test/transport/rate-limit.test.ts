import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { SqlsyncError } from '../../src/errors.ts';
import { memoryTransportPair } from '../../src/transport/memory.ts';
import { spawnProcess } from '../../src/transport/process.ts';
import { parseRate } from '../../src/cli/options/quantities.ts';
import { limitRate, rateLimit } from '../../src/transport/rate-limit.ts';
import { ECHO_PROGRAM, digest, echo, transportSuite } from './transport-suite.ts';

const MIB = 1024 * 1024;

transportSuite('limited process', (context) => {
  const child = spawnProcess({ command: process.execPath, args: ['-e', ECHO_PROGRAM] });
  const transport = limitRate(child, 64 * MIB);
  context.after(() => transport.terminate());
  return Promise.resolve({ transport, mediumBytes: 8 * MIB });
});

describe('a limited transport', () => {
  for (const [way, near, far] of [
    ['out', 200, undefined],
    ['in', undefined, 200],
  ] as const) {
    test(`a limited transport lets no more through than its rate, ${way}`, async (context) => {
      const [a, b] = memoryTransportPair();
      context.after(() => a.terminate());
      const transport = limitRate(a, (near ?? far ?? 0) * 1024);
      const startedAt = performance.now();
      const received = digest(way === 'out' ? b.input : transport.input);
      (way === 'out' ? transport.output : b.output).end(Buffer.alloc(100 * 1024));
      assert.equal((await received).byteCount, 100 * 1024);
      // 100 KiB at 200 KiB/s, less the tenth of a second that may come at once: never sooner, even on a fast
      // machine.
      assert.ok(performance.now() - startedAt >= 390);
    });
  }

  test('transports with one limit let no more through together than its rate', async (context) => {
    const limited = rateLimit(200 * 1024);
    const pairs = [memoryTransportPair(), memoryTransportPair()];
    context.after(() => pairs.forEach(([a]) => a.terminate()));
    const startedAt = performance.now();
    const received = pairs.map(([a, b]) => {
      limited(a).output.end(Buffer.alloc(50 * 1024));
      return digest(b.input);
    });
    for (const each of await Promise.all(received)) assert.equal(each.byteCount, 50 * 1024);
    assert.ok(performance.now() - startedAt >= 390);
  });

  test('a limited transport does not make the reader of a little wait for more', async (context) => {
    const [a, b] = memoryTransportPair();
    context.after(() => a.terminate());
    const transport = limitRate(a, 1024);
    void echo(b);
    transport.output.write('ping');
    const [answer] = (await new Promise((resolve) =>
      transport.input.once('data', (data) => resolve([data])),
    )) as [Buffer];
    assert.equal(answer.toString(), 'ping');
  });

  test('a limited transport passes the error of its medium on', async () => {
    const child = spawnProcess({ command: 'sqlsync-that-nobody-has', args: [] });
    await assert.rejects(digest(limitRate(child, MIB).input), { code: 'REMOTE_EXE_NOT_FOUND' });
  });
});

describe('a rate', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sqlsync-rate-'));
  after(() => rmSync(folder, { recursive: true }));
  const rsync = spawnSync('rsync', ['--version']).status === 0;

  test('a rate means the same as for rsync', { skip: rsync ? false : 'rsync is missing' }, () => {
    const teller = join(folder, 'teller');
    writeFileSync(teller, '#!/bin/sh\necho "$*" >&2\nexit 1\n', { mode: 0o755 });
    const rates =
      '1 500 1.5m 1.5MiB 10MB 10mb 5kb 5.7KB 512b 700b 2000B .5 1. 1.k 1t 0.001G 511b 100b x 1kbb -1 1e3';
    for (const rate of [...rates.split(' '), '', ' 1', '1 k']) {
      const { stderr } = spawnSync('rsync', [`--bwlimit=${rate}`, '-e', teller, '-a', 'u@h:x', folder], {
        encoding: 'utf8',
      });
      const told = /--bwlimit=(\d+) /.exec(/is (too small|invalid)/.test(stderr) ? '' : stderr)?.[1];
      if (told === undefined)
        assert.throws(() => parseRate('--bwlimit', rate), SqlsyncError, `${rate}: ${stderr}`);
      else assert.equal(parseRate('--bwlimit', rate), Number(told) * 1024, rate);
    }
  });

  test('a rate of 0 is no limit', () => {
    assert.equal(parseRate('--bwlimit', '0'), undefined);
    assert.equal(parseRate('--bwlimit', '0m'), undefined);
  });

  test('a rate that cannot be read is a usage error with examples', () => {
    assert.throws(() => parseRate('--bwlimit', 'fast'), { code: 'USAGE', message: /"fast"/, hint: /1\.5m/ });
  });
});
