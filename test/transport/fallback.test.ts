import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, test } from 'node:test';
import { SqlsyncError } from '../../src/errors.ts';
import { withFallback } from '../../src/transport/fallback.ts';
import { spawnProcess } from '../../src/transport/process.ts';
import type { Transport } from '../../src/transport/transport.ts';
import { ECHO_PROGRAM, transportSuite } from './transport-suite.ts';

const MISSING = 'echo not found >&2; exit 127';
const ECHO = 'exec cat';

function sh(script: string): Transport {
  return spawnProcess({ command: 'sh', args: ['-c', script] });
}

function echo(): Transport {
  return spawnProcess({ command: process.execPath, args: ['-e', ECHO_PROGRAM] });
}

const MEDIUM_BYTES = 4 * 1024 * 1024;

transportSuite('a first', (t) => {
  const transport = withFallback(
    echo(),
    () => assert.fail('it was there'),
    () => {},
  );
  t.after(() => transport.terminate());
  return Promise.resolve({ transport, mediumBytes: MEDIUM_BYTES });
});

transportSuite('a fallback', (t) => {
  const transport = withFallback(
    sh(MISSING),
    () => Promise.resolve(echo()),
    () => {},
  );
  t.after(() => transport.terminate());
  return Promise.resolve({ transport, mediumBytes: MEDIUM_BYTES });
});

describe('a fallback for a command that is missing', () => {
  const outcomeOf = async (
    first: string,
    next: () => Promise<Transport>,
  ): Promise<{ said: string; error: Error | undefined; news: number; status: number | null }> => {
    let news = 0;
    const transport = withFallback(sh(first), next, () => news++);
    let said = '';
    let error: Error | undefined;
    transport.input.on('data', (bytes: Buffer) => (said += bytes.toString()));
    transport.input.on('error', (fault: Error) => (error = fault));
    transport.output.end('hello');
    await once(transport.input, 'close').catch(() => {});
    const { status } = await transport.exited;
    return { said, error, news, status };
  };

  test('the other command gets all that was written, and its use is news', async () => {
    const outcome = await outcomeOf(MISSING, () => Promise.resolve(sh(ECHO)));
    assert.deepEqual(outcome, { said: 'hello', error: undefined, news: 1, status: 0 });
  });

  test('a command that is there is used, however it ends', async () => {
    for (const [script, status] of [
      [ECHO, 0],
      ['exec cat; exit 127', 0],
      ['cat; exit 3', 3],
    ] as const) {
      const outcome = await outcomeOf(script, () => assert.fail('it was there'));
      assert.deepEqual(outcome, { said: 'hello', error: undefined, news: 0, status });
    }
  });

  test('where neither is there, or the other cannot be reached, the error is that of the first', async () => {
    const unreachable = new SqlsyncError('CONNECT_FAILED', 'no login');
    for (const next of [
      () => Promise.resolve(sh('echo other >&2; exit 127')),
      () => Promise.reject(unreachable),
    ]) {
      const { error, news, said } = await outcomeOf(MISSING, next);
      assert.ok(error instanceof SqlsyncError);
      assert.deepEqual([error.code, news, said], ['REMOTE_EXE_NOT_FOUND', 0, '']);
      assert.match(error.message, /not found/);
    }
  });

  test('where the other is there and cannot run, the error is that of the other', async () => {
    const { error } = await outcomeOf(MISSING, () => Promise.resolve(sh('echo too old >&2; exit 9')));
    assert.ok(error instanceof SqlsyncError);
    assert.equal(error.code, 'NODE_UNSUPPORTED');
  });

  test('a transport that is terminated while the other is started ends that too', async () => {
    const asked = Promise.withResolvers<void>();
    const started = Promise.withResolvers<Transport>();
    const transport = withFallback(
      sh(MISSING),
      () => {
        asked.resolve();
        return started.promise;
      },
      () => {},
    );
    await asked.promise;
    transport.terminate();
    const other = sh('exec sleep 600');
    started.resolve(other);
    await Promise.all([other.exited, transport.exited]);
  });
});
