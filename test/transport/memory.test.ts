import assert from 'node:assert/strict';
import { test } from 'node:test';
import { memoryTransportPair } from '../../src/transport/memory.ts';
import { digest, echo, transportSuite } from './transport-suite.ts';

transportSuite('memory', (context) => {
  const [near, far] = memoryTransportPair();
  context.after(() => near.terminate());
  void echo(far);
  return Promise.resolve({ transport: near, mediumBytes: 1024 * 1024 });
});

test('the far side of a memory transport sees a clean end when the near side terminates', async () => {
  const [near, far] = memoryTransportPair();
  near.output.write('half a mess');
  near.terminate();
  assert.equal((await digest(far.input)).byteCount, 'half a mess'.length);
  assert.equal((await far.exited).status, null);
  const outcome = new Promise((resolve) => far.output.write('answer', resolve));
  assert.ok((await outcome) instanceof Error);
});

test('a memory transport copies what is written, as any real medium does', async () => {
  const [near, far] = memoryTransportPair();
  const buffer = Buffer.from('before');
  await new Promise((resolve) => near.output.write(buffer, resolve));
  buffer.write('after!');
  assert.equal(String(far.input.read()), 'before');
});
