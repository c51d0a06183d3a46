import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { SqlsyncError } from '../../src/errors.ts';
import { OrderedReports } from '../../src/sync/folder/ordered-reports.ts';
import { SharedLink } from '../../src/sync/runs/lanes.ts';
import type { LanesOptions, Task } from '../../src/sync/runs/lanes.ts';
import { installRemote } from '../support/ssh-cli.ts';
import { SSHD_MISSING, startSshd } from '../support/sshd.ts';
import type { Sshd, SshdOptions } from '../support/sshd.ts';

const scratch = mkdtempSync(join(tmpdir(), 'sqlsync-lanes-'));
const started: Sshd[] = [];
after(async () => {
  for (const sshd of started) await sshd.stop();
  rmSync(scratch, { recursive: true });
});

interface Host {
  readonly sshd: Sshd;
  /** Of this sshd, so far. */
  readonly logins: () => number;
  readonly agents: () => number;
}

async function hostWith(options: SshdOptions = {}): Promise<Host | undefined> {
  const sshd = await startSshd(options);
  if (sshd === undefined) return undefined;
  started.push(sshd);
  const pids = join(scratch, `pids-${sshd.port}`);
  installRemote(sshd, pids);
  return {
    sshd,
    logins: () => sshd.log().match(/Accepted publickey/g)?.length ?? 0,
    agents: () => readdirSync(pids).length,
  };
}

const host = await hostWith();
const skip = host === undefined ? SSHD_MISSING : false;

function linkTo({ sshd }: Host, options: LanesOptions = {}): SharedLink {
  const { host: name, port, user, clientKey, knownHostsFile } = sshd;
  const login = { configFile: 'none', identityFiles: [clientKey], knownHostsFiles: [knownHostsFile] };
  return new SharedLink(
    { kind: 'ssh', host: name, port, user, path: '.' },
    { ...login, ...options },
    {
      onRetry: () => assert.fail('nothing was to be tried again'),
    },
  );
}

/** Does its work without its agent. */
function task(run: () => void | Promise<void>, more: Partial<Task> = {}): Task {
  return { state: 'opening', run: async () => run(), fail: (failure) => assert.fail(failure), ...more };
}

/** Resolves for all once `count` have come. */
function meeting(count: number): () => Promise<void> {
  const met = Promise.withResolvers<void>();
  let come = 0;
  return () => {
    if (++come === count) met.resolve();
    return met.promise;
  };
}

describe('lanes', { skip }, () => {
  test('four lanes work at the same time over one login, and no more', async () => {
    const { logins, agents } = host as Host;
    const before = [logins(), agents()];
    const meet = meeting(4);
    let [present, most] = [0, 0];
    const work = task(async () => {
      most = Math.max(most, ++present);
      await meet();
      present--;
    });
    const tasks = [task(() => {}), ...Array.from({ length: 40 }, () => work)];
    await linkTo(host as Host).run(tasks);
    assert.deepEqual([tasks.length, most], [0, 4]);
    assert.deepEqual([logins() - (before[0] ?? 0), agents() - (before[1] ?? 0)], [1, 4]);
  });

  test('few tasks start no further agent', async () => {
    const { agents } = host as Host;
    const before = agents();
    await linkTo(host as Host).run(Array.from({ length: 6 }, () => task(() => {})));
    assert.equal(agents() - before, 1);
  });

  test('a host that lets a login have one channel is no failure, and is told of in detail only', async () => {
    const strict = (await hostWith({ config: ['MaxSessions 1'] })) as Host;
    const notes: string[] = [];
    const refused = Promise.withResolvers<void>();
    const onNote = (note: string): void => {
      notes.push(note);
      refused.resolve();
    };
    // The second one waits, so that the answer of the host comes while there is something to do.
    const tasks = [
      task(() => {}),
      task(() => refused.promise),
      ...Array.from({ length: 30 }, () => task(() => {})),
    ];
    const onWarning = (): void => assert.fail('there was nothing to warn of');
    await linkTo(strict, { onNote, onWarning }).run(tasks);
    assert.match(notes.join('\n'), /^Not more than 1 .*refuses a further channel/);
    assert.deepEqual([tasks.length, strict.logins(), strict.agents()], [0, 1, 1]);
  });

  test('a task that fails ends its own lane only', async () => {
    const { logins } = host as Host;
    const before = logins();
    const failures: string[] = [];
    const meet = meeting(4);
    let done = 0;
    const failing = task(
      async () => {
        await meet();
        throw new SqlsyncError('ORIGIN_UNREADABLE', 'it is damaged');
      },
      { fail: ({ code }) => void failures.push(code) },
    );
    const others = Array.from({ length: 30 }, () =>
      task(async () => {
        await meet();
        done++;
      }),
    );
    await linkTo(host as Host).run([task(() => {}), failing, ...others]);
    assert.deepEqual([failures, done, logins() - before], [['ORIGIN_UNREADABLE'], 30, 1]);
  });

  test('after a failure of all, the lanes end what they have begun, and the rest stays to be done', async () => {
    const meet = meeting(4);
    let done = 0;
    const losing = task(async () => {
      await meet();
      throw new SqlsyncError('CONNECTION_LOST', 'it is gone');
    });
    const others = Array.from({ length: 30 }, () =>
      task(async () => {
        await meet();
        done++;
      }),
    );
    const tasks = [task(() => {}), losing, ...others];
    await assert.rejects(linkTo(host as Host).run(tasks), { code: 'CONNECTION_LOST' });
    assert.equal(tasks[0], losing);
    // Each of the other three had one when they met, and may have taken more before the failure was seen.
    assert.ok(done >= 3, String(done));
    assert.equal(tasks.length, 31 - done);
  });

  test('two tasks never open the same file of this host at the same time', async () => {
    const open = new Set<string>();
    const meet = meeting(2);
    const use = (file: string): Task =>
      task(
        async () => {
          assert.ok(!open.has(file), `${file} is open`);
          open.add(file);
          await meet();
          await new Promise((resolve) => setTimeout(resolve, 1));
          open.delete(file);
        },
        { fileHere: () => file },
      );
    const tasks = [task(() => {}), ...Array.from({ length: 40 }, (_, i) => use(`file ${i % 2}`))];
    await linkTo(host as Host).run(tasks);
    assert.equal(tasks.length, 0);
  });
});

test('reports are made in the order of their places, and those that wait for missing ones at the end', () => {
  const reports = new OrderedReports();
  const made: number[] = [];
  const add = (place: number): void => reports.add(place, () => void made.push(place));
  for (const place of [2, 0, 5, 1, 4]) add(place);
  assert.deepEqual(made, [0, 1, 2]);
  reports.flush();
  assert.deepEqual(made, [0, 1, 2, 4, 5]);
});
