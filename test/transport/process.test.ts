import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { SqlsyncError } from '../../src/errors.ts';
import { spawnProcess } from '../../src/transport/process.ts';
import type { Transport } from '../../src/transport/transport.ts';
import { ECHO_PROGRAM, digest, transportSuite } from './transport-suite.ts';

transportSuite('process', (context) => {
  const transport = runNode(ECHO_PROGRAM);
  context.after(() => transport.terminate());
  return Promise.resolve({ transport, mediumBytes: 4 * 1024 * 1024 });
});

function runNode(script: string, options: Partial<Parameters<typeof spawnProcess>[0]> = {}): Transport {
  return spawnProcess({ command: process.execPath, args: ['-e', script], ...options });
}

test('a command that is not installed fails the input with REMOTE_EXE_NOT_FOUND and a hint', async () => {
  const transport = spawnProcess({ command: 'sqlsync-that-nobody-has', args: [] });
  await assert.rejects(digest(transport.input), (error: SqlsyncError) => {
    assert.equal(error.code, 'REMOTE_EXE_NOT_FOUND');
    assert.match(error.message, /sqlsync-that-nobody-has/);
    assert.match(error.hint ?? '', /PATH/);
    return true;
  });
  assert.deepEqual(await transport.exited, { status: null, signal: null, stderr: '' });
  transport.terminate();
});

test("a shell that cannot find the command fails the input with the shell's message", async () => {
  const transport = spawnProcess({ command: 'sh', args: ['-c', 'sqlsync-that-nobody-has'] });
  await assert.rejects(digest(transport.input), (error: SqlsyncError) => {
    assert.equal(error.code, 'REMOTE_EXE_NOT_FOUND');
    assert.match(error.message, /127.*not found/s);
    return true;
  });
});

test('a caller that knows the command can explain a silent end', async () => {
  const transport = runNode('console.error("no route"); process.exit(255)', {
    explainSilentExit: (exit) => new SqlsyncError('CONNECT_FAILED', `${exit.status}: ${exit.stderr}`),
  });
  await assert.rejects(digest(transport.input), { code: 'CONNECT_FAILED', message: '255: no route' });
});

test('a child that fails after some bytes ends the input, and `exited` has the status and its last words', async () => {
  const script = `process.stdout.write('some'); console.error('\\u001b[31mred\\u202e'); process.exitCode = 3`;
  const seen: string[] = [];
  const transport = runNode(script, { onStderr: (text) => seen.push(text) });
  assert.equal((await digest(transport.input)).byteCount, 4);
  const red = '\ufffd[31mred\ufffd';
  assert.deepEqual(await transport.exited, { status: 3, signal: null, stderr: red });
  assert.equal(seen.join(''), `${red}\n`);
});

test('only the last 4 KiB of stderr are kept', async () => {
  const transport = runNode(`process.stderr.write('a'.repeat(1e6) + 'the end')`);
  await digest(transport.input);
  const { stderr } = await transport.exited;
  assert.equal(stderr.length, 4096);
  assert.match(stderr, /the end$/);
});

test('a child that is killed ends the input cleanly, and `exited` names the signal', async () => {
  const transport = runNode(
    `process.stdout.write('some'); setTimeout(() => process.kill(process.pid, 'SIGKILL'))`,
  );
  await digest(transport.input);
  assert.deepEqual(await transport.exited, { status: null, signal: 'SIGKILL', stderr: '' });
  transport.terminate();
});

test('a child that ignores SIGTERM and the end of its input is killed', async () => {
  const transport = runNode(
    `process.on('SIGTERM', () => {}); setInterval(() => {}, 1000); console.log('up')`,
  );
  await once(transport.input, 'data');
  transport.terminate();
  assert.equal((await transport.exited).signal, 'SIGKILL');
});

test('a signal that aborts terminates the child and fails the input with INTERRUPTED', async () => {
  const controller = new AbortController();
  const transport = runNode(ECHO_PROGRAM, { signal: controller.signal });
  transport.output.write('ping');
  await once(transport.input, 'data');
  controller.abort();
  await assert.rejects(digest(transport.input), { code: 'INTERRUPTED' });
  assert.equal((await transport.exited).signal, 'SIGTERM');
});

test('a grandchild that keeps stderr open does not hold up `exited`', async (context) => {
  const transport = spawnProcess({ command: 'sh', args: ['-c', 'echo up; sleep 60 >&- & echo $!'] });
  const words: Buffer[] = [];
  for await (const chunk of transport.input as AsyncIterable<Buffer>) words.push(chunk);
  const pid = Number(Buffer.concat(words).toString().split('\n')[1]);
  context.after(() => process.kill(pid));
  assert.equal((await transport.exited).status, 0);
  transport.terminate();
});
