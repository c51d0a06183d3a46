import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import type { Socket } from 'node:net';
import { connect } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { CommitListener } from '../../../src/pool/admission/commit-listener.ts';
import { Coordinator } from '../../../src/pool/admission/coordinator.ts';
import { observeQueue } from '../../../src/pool/admission/observe.ts';
import { QueueSocket } from '../../../src/pool/admission/queue-socket.ts';
import {
  encodeFrame,
  FrameReader,
  REPLIES,
  REQUESTS,
  TELLS_OF_WRITES,
  WIRE_VERSION,
} from '../../../src/pool/admission/wire.ts';
import type { Frame, Reply } from '../../../src/pool/admission/wire.ts';
import { openDatabase } from '../../../src/pool/database.ts';
import { tempDir } from '../../support/compare.ts';
import { makeDatabase, socketPath } from './admission-process.ts';

const TIMEOUT = { timeout: 120_000 };

async function until(isTrue: () => boolean): Promise<void> {
  while (!isTrue()) await delay(1);
}

/** A connection to the coordinator, with the frames that it got. */
class Peer {
  readonly socket: Socket;
  readonly got: Frame<Reply>[] = [];

  constructor(t: TestContext, path: string) {
    const reader = new FrameReader<Reply>(REPLIES);
    this.socket = connect(socketPath(path)).on('error', () => {});
    this.socket.on('data', (chunk) => this.got.push(...(reader.read(chunk) ?? assert.fail('no frames'))));
    t.after(() => this.socket.destroy());
  }

  count(type: Reply): number {
    return this.got.filter((frame) => frame.type === type).length;
  }
}

async function member(t: TestContext, path: string, timeUs: number): Promise<Peer> {
  const peer = new Peer(t, path);
  peer.socket.write(encodeFrame(REQUESTS.hello, WIRE_VERSION, false, timeUs));
  await until(() => peer.count('state') > 0);
  return peer;
}

function coordinated(t: TestContext): string {
  const path = makeDatabase(join(tempDir(t), 'app.db'));
  const coordinator = new Coordinator(new QueueSocket(path));
  t.after(() => coordinator.close());
  return path;
}

function listening(t: TestContext, path: string): { told: number } {
  const heard = { told: 0 };
  const listener = new CommitListener(path, () => heard.told++);
  t.after(() => listener.close());
  return heard;
}

test(
  'a listener hears of each pool: when it comes, after its commits, and when it goes',
  TIMEOUT,
  async (t) => {
    const path = makeDatabase(join(tempDir(t), 'app.db'));
    const heard = listening(t, path);
    const db = await openDatabase(path);
    t.after(() => db.close());
    await until(() => heard.told > 0);
    for (let n = 0; n < 3; n++) {
      const before = heard.told;
      await db.write.run('INSERT INTO t VALUES (1)');
      await until(() => heard.told > before);
    }
    const before = heard.told;
    await db.close();
    await until(() => heard.told > before);
  },
);

test(
  'members say that they have written only while somebody listens, and those of before never',
  TIMEOUT,
  async (t) => {
    const path = coordinated(t);
    const [older, newer] = [await member(t, path, 0), await member(t, path, TELLS_OF_WRITES)];
    const listener = new Peer(t, path);
    listener.socket.write(encodeFrame(REQUESTS.listen, WIRE_VERSION));
    await until(() => newer.count('listened') === 1);
    const later = await member(t, path, TELLS_OF_WRITES);
    await until(() => later.count('listened') === 1);
    listener.socket.destroy();
    await until(() => newer.count('listened') === 2 && later.count('listened') === 2);
    assert.deepEqual(
      newer.got.filter(({ type }) => type === 'listened').map(({ flag }) => flag),
      [true, false],
    );
    older.socket.write(encodeFrame(REQUESTS.ask, 0));
    await until(() => older.count('answer') === 1);
    assert.equal(older.count('listened'), 0);
  },
);

test('a listener that reads nothing is not waited for, and costs the others nothing', TIMEOUT, async (t) => {
  const path = coordinated(t);
  const heard = listening(t, path);
  await until(() => heard.told > 0);
  const deaf = new Peer(t, path);
  deaf.socket.write(encodeFrame(REQUESTS.listen, WIRE_VERSION));
  deaf.socket.pause();
  const writer = await member(t, path, TELLS_OF_WRITES);
  // A socket of Linux holds some hundred writes that are not read.
  writer.socket.write(Buffer.concat(Array.from({ length: 3000 }, () => encodeFrame(REQUESTS.wrote, 0))));
  writer.socket.write(encodeFrame(REQUESTS.ask, 0));
  await until(() => writer.count('answer') === 1);
  const before = heard.told;
  writer.socket.write(encodeFrame(REQUESTS.wrote, 0));
  await until(() => heard.told > before);
  let isClosed = false;
  deaf.socket.resume().once('close', () => (isClosed = true));
  await until(() => deaf.count('wrote') > 0);
  assert.equal(isClosed, false);
});

test('a listener says no more than that it listens, and observers do not see it', TIMEOUT, async (t) => {
  const path = coordinated(t);
  const listener = new Peer(t, path);
  const isClosed = new Promise((resolve) => listener.socket.once('close', resolve));
  listener.socket.write(encodeFrame(REQUESTS.listen, WIRE_VERSION));
  await until(() => listener.count('wrote') > 0);
  assert.deepEqual(await observeQueue(path, 600_000), []);
  listener.socket.write(encodeFrame(REQUESTS.wrote, 0));
  await isClosed;
});

test('a listener waits for a database that is not there, and for one that comes back', TIMEOUT, async (t) => {
  const path = join(tempDir(t), 'app.db');
  const heard = listening(t, path);
  for (let n = 0; n < 2; n++) {
    makeDatabase(path);
    const before = heard.told;
    const db = await openDatabase(path);
    await until(() => heard.told > before);
    await db.close();
    for (const suffix of ['', '-wal', '-shm']) rmSync(path + suffix, { force: true });
  }
});
