import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { readCommandLine } from '../../src/cli/command-line.ts';
import { ARCHITECTURES, debianFileName } from '../../src/release/debian-package.ts';
import { readDockerfile, textOf } from './dockerfile.ts';

test('the Dockerfile has known instructions, in the order in which each can work', () => {
  assert.deepEqual(
    readDockerfile().map(({ name }) => name),
    ['FROM', 'ARG', 'ARG', 'RUN', 'ENV', 'USER', 'WORKDIR', 'HEALTHCHECK', 'ENTRYPOINT', 'CMD'],
  );
  const { status, stderr } = spawnSync('sh', ['-n'], { input: textOf('RUN'), encoding: 'utf8' });
  assert.deepEqual([status, stderr], [0, '']);
});

test('the image takes the Debian package of its architecture by the name that the build gives it', () => {
  const [, pattern = ''] = /\/packages\/(\S+)/.exec(textOf('RUN')) ?? [];
  for (const architecture of Object.values(ARCHITECTURES)) {
    const names = pattern.replace('${VERSION}', '1.2.3').replace('${TARGETARCH}', architecture);
    assert.equal(debianFileName('1.2.3', architecture), names);
  }
});

test('the image runs the service as a user of its own, and its health is the status of that service', async () => {
  assert.notEqual(textOf('USER'), 'root');
  assert.match(textOf('RUN'), new RegExp(`useradd .* ${textOf('USER')} `));
  assert.deepEqual(JSON.parse(textOf('ENTRYPOINT')), ['sqlsync']);
  const service = await readCommandLine(JSON.parse(textOf('CMD')) as string[]);
  const [, words = ''] = /^CMD sqlsync (.*) \|\| exit 1$/.exec(textOf('HEALTHCHECK')) ?? [];
  const health = await readCommandLine(words.split(' '));
  assert.deepEqual([service.command.name, health.command.name], ['run', 'status']);
  assert.deepEqual(JSON.parse(textOf('CMD')).slice(-2), words.split(' ').slice(-2));
});
