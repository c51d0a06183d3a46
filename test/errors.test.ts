import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MessageChannel, receiveMessageOnPort } from 'node:worker_threads';
import type { ErrorData } from '../src/errors.ts';
import { SqlsyncError, errorFromData, errorToData } from '../src/errors.ts';

/** The error after a message has carried it to another thread. */
function sent(error: unknown): Error {
  const { port1, port2 } = new MessageChannel();
  port1.postMessage(errorToData(error));
  const received = receiveMessageOnPort(port2);
  port1.close();
  return errorFromData(received?.message as ErrorData);
}

test('a SqlsyncError crosses threads with its code, hint, outcome, stack and cause', () => {
  const cause = Object.assign(new Error('disk I/O error'), { name: 'SqliteError', code: 'SQLITE_IOERR' });
  const error = new SqlsyncError('BUSY', 'still locked', { hint: 'Wait.', outcome: 'unknown', cause });
  const received = sent(error);
  assert.ok(received instanceof SqlsyncError);
  assert.deepEqual(
    [received.name, received.code, received.message, received.hint, received.outcome, received.stack],
    ['SqlsyncError', 'BUSY', 'still locked', 'Wait.', 'unknown', error.stack],
  );
  const receivedCause = received.cause as Error & { code: string };
  assert.deepEqual(
    [receivedCause.name, receivedCause.code, receivedCause.message, receivedCause.stack],
    ['SqliteError', 'SQLITE_IOERR', 'disk I/O error', cause.stack],
  );
});

test('a TypeError crosses threads as a TypeError, with a code if it has one', () => {
  const received = sent(Object.assign(new TypeError('wrong value'), { code: 'ERR_X' }));
  assert.ok(received instanceof TypeError);
  assert.deepEqual([(received as Error & { code: string }).code, received.message], ['ERR_X', 'wrong value']);
  assert.equal('code' in sent(new TypeError('no code')), false);
});

test('any thrown value crosses threads as an Error, and a circle of causes ends', () => {
  assert.equal(sent('a text').message, 'a text');
  const error = new Error('its own cause');
  error.cause = error;
  let depth = 0;
  for (let next: unknown = sent(error); next instanceof Error && depth < 100; next = next.cause) depth += 1;
  assert.equal(depth, 4);
});
