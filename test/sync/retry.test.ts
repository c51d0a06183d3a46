import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, test } from 'node:test';
import { SqlsyncError } from '../../src/errors.ts';
import type { ErrorCode } from '../../src/errors.ts';
import { withMaxTime } from '../../src/sync/runs/max-time.ts';
import { withRetries } from '../../src/sync/runs/retry.ts';
import type { Retry, RetryOptions } from '../../src/sync/runs/retry.ts';
import { AnswerMemory } from '../../src/transport/terminal.ts';

function failing(code: ErrorCode, cause?: unknown): () => Promise<never> {
  return () => Promise.reject(new SqlsyncError(code, `failed by ${code}`, { cause }));
}

function options(retries: number, more: Partial<RetryOptions> = {}): RetryOptions & { told: Retry[] } {
  const told: Retry[] = [];
  return {
    retries,
    hasProgressed: () => false,
    onRetry: (retry) => told.push(retry),
    firstPauseMs: 1,
    random: () => 0,
    told,
    ...more,
  };
}

describe('retries', () => {
  for (const code of ['CONNECT_FAILED', 'CONNECTION_LOST', 'TIMEOUT'] as const) {
    test(`retries of ${code} are as many as allowed, and the run ends with the last failure`, async () => {
      let attempts = 0;
      const given = options(3);
      const work = (): Promise<never> => {
        attempts++;
        return failing(code)();
      };
      await assert.rejects(withRetries(work, given), { code });
      assert.equal(attempts, 4);
      assert.deepEqual(
        given.told.map(({ attempt, failure }) => [attempt, failure.code]),
        [2, 3, 4].map((attempt) => [attempt, code]),
      );
    });
  }

  for (const code of [
    'AUTH_FAILED',
    'HOST_KEY_MISMATCH',
    'HOST_KEY_UNKNOWN',
    'REMOTE_EXE_NOT_FOUND',
    'SWAPPED',
    'REPLICA_UNWRITABLE',
    'PROTOCOL',
    'PROTOCOL_VERSION',
    'RESTRICTED',
    'SNAPSHOT_LIMIT',
    'INTERRUPTED',
    'INTERNAL',
    'BUSY',
  ] as const) {
    test(`${code} is not tried again`, async () => {
      const given = options(3);
      await assert.rejects(withRetries(failing(code), given), { code });
      assert.equal(given.told.length, 0);
    });
  }

  test('a missing remote shell is not tried again', async () => {
    const given = options(3);
    const cause = Object.assign(new Error('spawn nosuch ENOENT'), { code: 'ENOENT' });
    await assert.rejects(withRetries(failing('CONNECT_FAILED', cause), given), { code: 'CONNECT_FAILED' });
    assert.equal(given.told.length, 0);
  });

  test('retries end with the first success, which reports the number of attempts', async () => {
    const work = (attempt: number): Promise<string> =>
      attempt < 3 ? failing('CONNECTION_LOST')() : Promise.resolve('done');
    assert.deepEqual(await withRetries(work, options(9)), { result: 'done', attempts: 3 });
  });

  test('BUSY after a loss is tried again: the far agent may not have noticed the loss yet', async () => {
    const codes: ErrorCode[] = ['CONNECTION_LOST', 'BUSY', 'BUSY'];
    const work = (attempt: number): Promise<string> => {
      const code = codes[attempt - 1];
      return code === undefined ? Promise.resolve('done') : failing(code)();
    };
    assert.equal((await withRetries(work, options(5))).attempts, 4);
  });

  test('retries come after pauses that double up to a limit, and begin anew after progress', async () => {
    let failures = 0;
    const given = options(12, { hasProgressed: () => failures === 11 });
    const work = (): Promise<never> => {
      failures++;
      return failing('CONNECTION_LOST')();
    };
    await assert.rejects(withRetries(work, given));
    assert.deepEqual(
      given.told.map(({ pauseMs }) => pauseMs),
      [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1, 2],
    );
  });

  test('retries pause for no longer than a minute, shortened by chance by up to a half', async () => {
    const pauses: number[] = [];
    const stop = new AbortController();
    const given = options(1, {
      firstPauseMs: 60_000,
      random: () => 0.5,
      signal: stop.signal,
      onRetry: ({ pauseMs }) => {
        pauses.push(pauseMs);
        stop.abort();
      },
    });
    await assert.rejects(withRetries(failing('TIMEOUT'), given), { code: 'INTERRUPTED' });
    assert.deepEqual(pauses, [45_000]);
  });

  test('--max-time ends retries in the middle of a pause', async () => {
    const run = withMaxTime(20, undefined, (signal) => {
      const given = options(1, { firstPauseMs: 3_600_000, ...(signal === undefined ? {} : { signal }) });
      return withRetries(failing('CONNECT_FAILED'), given);
    });
    await assert.rejects(run, { code: 'TIMEOUT', message: /--max-time/ });
  });

  test('retries that follow an attempt of unknown outcome fail with one, in an attempt and in a pause', async () => {
    const lost = new SqlsyncError('CONNECTION_LOST', 'lost', { hint: 'Look.', outcome: 'unknown' });
    const work = (attempt: number): Promise<never> =>
      attempt === 1 ? Promise.reject(lost) : failing('CONNECT_FAILED')();
    await assert.rejects(withRetries(work, options(1)), { code: 'CONNECT_FAILED', outcome: 'unknown' });
    const stop = new AbortController();
    const given = options(1, { firstPauseMs: 60_000, signal: stop.signal, onRetry: () => stop.abort() });
    await assert.rejects(withRetries(work, given), { code: 'INTERRUPTED', outcome: 'unknown' });
    await assert.rejects(withRetries(failing('TIMEOUT'), options(1)), { outcome: undefined });
  });
});

describe('--max-time', () => {
  test('--max-time that ends a run of unknown outcome says so, with the hint of the interrupted attempt', async () => {
    const hint = 'The replica may have been committed.';
    for (const outcome of ['unknown', 'committed', undefined] as const) {
      const run = withMaxTime(1, undefined, async (signal) => {
        await once(signal as AbortSignal, 'abort');
        throw new SqlsyncError('INTERRUPTED', 'Interrupted', { hint, outcome });
      });
      await assert.rejects(run, (error: SqlsyncError) => {
        assert.deepEqual([error.code, error.outcome], ['TIMEOUT', outcome]);
        assert.equal(error.hint === hint, outcome !== undefined);
        return true;
      });
    }
  });
});

describe("the user's answer", () => {
  test('a retry does not ask the user again, unless the answer was wrong', async () => {
    const asked: string[] = [];
    const memory = new AnswerMemory((question) => {
      asked.push(question);
      return Promise.resolve(`answer ${asked.length}`);
    });
    const first = memory.forNextLogin();
    assert.equal(await first('Password?', false), 'answer 1');
    assert.equal(await first('Password?', false), 'answer 2', 'the first was wrong');
    const second = memory.forNextLogin();
    assert.equal(await second('Password?', false), 'answer 2');
    assert.equal(await second('Password?', false), 'answer 3', 'it has changed');
    assert.equal(await memory.forNextLogin()('Password?', false), 'answer 3');
    assert.equal(await second('Passphrase?', false), 'answer 4');
    assert.deepEqual(asked, ['Password?', 'Password?', 'Password?', 'Passphrase?']);
  });
});
