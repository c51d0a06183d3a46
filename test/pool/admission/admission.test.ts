import assert from 'node:assert/strict';
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { describe, it } from 'node:test';
import Database from 'better-sqlite3';
import { openAdmission } from '../../../src/pool/admission/admission.ts';
import { tempDir } from '../../support/compare.ts';
import { makeDatabase, openCoordinator, openMembers, QueueProcess, socketPath } from './admission-process.ts';

/**
 * The limit of each test: that of a suite would hold for all its tests together, which take longer on a busy
 * machine.
 */
const TIMEOUT = { timeout: 120_000 };

/** By chance, five members are in order in one of 120 rounds. */
const ROUNDS_MAX = 6;

function database(t: TestContext, name = 'app.db'): string {
  return makeDatabase(join(tempDir(t), name));
}

interface Queued {
  /** The members in the order of their turns, by their place in the queue. */
  readonly order: readonly number[];
  /** Resolves when all have had the turn: to true if the coordinator gave every one of these turns. */
  readonly all: Promise<boolean>;
}

/** Lets `members` enter one after the other, in this order, and records their turns. */
async function queueUp(members: readonly QueueProcess[]): Promise<Queued> {
  const order: number[] = [];
  const turns: Promise<boolean>[] = [];
  for (const [index, member] of members.entries()) {
    const { turn } = await member.enter();
    turns.push(
      turn.then(async ({ isOwn }) => {
        order.push(index);
        await member.leave();
        return !isOwn;
      }),
    );
  }
  return { order, all: Promise.all(turns).then((given) => given.every(Boolean)) };
}

/**
 * Resolves when two processes wait for each other's turn, as those of one queue do; two queues run into the
 * test's time limit. A member gives itself the turn if the coordinator is silent for 100 ms, and comes back
 * afterwards. On a busy machine, and after an election, that proves nothing about the queue, so both enter
 * again.
 */
async function untilOneQueue(first: QueueProcess, second: QueueProcess): Promise<void> {
  for (let isOneQueue = false; !isOneQueue;) {
    await first.enterNow();
    const { turn } = await second.enter();
    let isSecond = false;
    const granted = turn.then(() => (isSecond = true));
    // The queue never asks a first holder back that gave itself the turn.
    await Promise.race([first.untilOver(), granted]);
    isOneQueue = !isSecond;
    await first.leave();
    await granted;
    await second.leave();
  }
}

describe('the queue of processes', () => {
  it('the queue gives the turns in the order in which the processes came', TIMEOUT, async (t) => {
    const path = database(t);
    const coordinator = await openCoordinator(t, path);
    const members = await openMembers(t, path, 5);
    for (const shuffled of [
      members,
      members.toReversed(),
      [3, 0, 4, 1, 2].map((i) => members[i] as QueueProcess),
    ]) {
      // A member that comes back too late from a move of the coordinator loses its place, and one that hears nothing
      // for 100 ms gives itself the turn: on a busy machine a round may be out of order, but not all of them.
      const rounds: number[][] = [];
      for (let isInOrder = false; !isInOrder;) {
        await coordinator.enterNow();
        const { order, all } = await queueUp(shuffled);
        const early = [...order];
        await coordinator.leave();
        const isGiven = await all;
        if (isGiven) assert.deepEqual(early, [], 'nobody has the turn while another holds it');
        rounds.push([...order]);
        isInOrder = order.join() === '0,1,2,3,4';
        assert.ok(isInOrder || rounds.length < ROUNDS_MAX, `rounds in other orders: ${rounds.join('; ')}`);
      }
    }
  });

  it(
    'the queue is calm until processes collide, and calm again when they no longer do',
    TIMEOUT,
    async (t) => {
      const path = database(t);
      const first = await openCoordinator(t, path);
      const [second] = (await openMembers(t, path, 1)) as [QueueProcess];
      const untilCalm = async (calm: boolean): Promise<void> => {
        for (const process of [first, second]) while ((await process.request({ type: 'isCalm' })) !== calm);
      };
      await untilCalm(true);
      await second.enterNow();
      await untilCalm(false);
      await second.leave();
      await untilCalm(true);
    },
  );

  it('the queue never says that a turn is over while nobody else waits', TIMEOUT, async (t) => {
    const path = database(t);
    const first = await openCoordinator(t, path);
    const [second] = (await openMembers(t, path, 1)) as [QueueProcess];
    await first.enterByGrant();
    assert.equal(await first.request({ type: 'isOver' }), false);
    const { turn } = await second.enter();
    await first.untilOver();
    await first.leave();
    await turn;
    assert.equal(await second.request({ type: 'isOver' }), false);
  });

  it('the queue loses and doubles no write of processes that collide all the time', TIMEOUT, async (t) => {
    const path = database(t);
    const members = [await openCoordinator(t, path), ...(await openMembers(t, path, 3))];
    const enters = await Promise.all(
      members.map((member) => member.request({ type: 'write', path, transactions: 2000 })),
    );
    const db = new Database(path);
    const rows = db.prepare('SELECT count(*) AS count FROM t GROUP BY writer').pluck().all();
    db.close();
    assert.deepEqual(rows, [2000, 2000, 2000, 2000]);
    assert(
      enters.some((count) => Number(count) > 0),
      `they never met: ${String(enters)}`,
    );
  });

  it('the queue hands on at once when the holder is killed', TIMEOUT, async (t) => {
    const path = database(t);
    await openCoordinator(t, path);
    const [holder, ...waiting] = (await openMembers(t, path, 4)) as [QueueProcess, ...QueueProcess[]];
    await holder.enterNow();
    const { order, all } = await queueUp(waiting);
    await holder.kill();
    const isGiven = await all;
    // Turns that members gave themselves have no order.
    assert.deepEqual(isGiven ? order : order.toSorted((a, b) => a - b), [0, 1, 2]);
  });

  it(
    'the queue elects a coordinator if another program filled the lock file that a killed one left',
    TIMEOUT,
    async (t) => {
      const path = database(t);
      writeFileSync(`${socketPath(path)}-lock`, 'pid 4711\n');
      await openCoordinator(t, path);
      assert.equal(lstatSync(`${socketPath(path)}-lock`).size, 0);
    },
  );

  it('the queue goes on under another coordinator when the coordinator is killed', TIMEOUT, async (t) => {
    const path = database(t);
    const coordinator = await openCoordinator(t, path);
    const [holder, ...waiting] = (await openMembers(t, path, 4)) as [QueueProcess, ...QueueProcess[]];
    await holder.enterNow();
    const { all } = await queueUp(waiting);
    await coordinator.kill();
    await holder.leave();
    await all;
    await untilOneQueue(waiting[0] as QueueProcess, waiting[1] as QueueProcess);
    await untilOneQueue(await QueueProcess.open(t, path), holder);
  });

  it('the queue leaves a holder its turn when the coordinator is killed', TIMEOUT, async (t) => {
    // On a busy machine the holder may come back to the new coordinator too late, but not in every round.
    for (let round = 1, isLeft = false; !isLeft; round++) {
      assert.ok(round <= ROUNDS_MAX, 'the holder lost its turn in every round');
      const path = database(t);
      const coordinator = await openCoordinator(t, path);
      const [holder, next] = (await openMembers(t, path, 2)) as [QueueProcess, QueueProcess];
      await holder.enterByGrant();
      await coordinator.kill();
      const { turn } = await next.enter();
      const granted = turn.then(() => false);
      isLeft = await Promise.race([holder.untilOver().then(() => true), granted]);
      await holder.leave();
      await granted;
    }
  });

  it('the queue is not held up by computation in the process of the coordinator', TIMEOUT, async (t) => {
    const path = database(t);
    const coordinator = await openCoordinator(t, path);
    const { ino } = lstatSync(socketPath(path));
    const [first, second] = (await openMembers(t, path, 2)) as [QueueProcess, QueueProcess];
    // With another member the coordinator moves to a thread, with another socket.
    while (lstatSync(socketPath(path)).ino === ino) await untilOneQueue(first, second);
    await untilOneQueue(coordinator, first);
    await coordinator.request({ type: 'block' });
    await untilOneQueue(first, second);
    await untilOneQueue(second, await QueueProcess.open(t, path));
  });

  it('the queue goes on when the coordinator is killed while it has the turn', TIMEOUT, async (t) => {
    const path = database(t);
    const coordinator = await openCoordinator(t, path);
    const waiting = await openMembers(t, path, 4);
    await coordinator.enterNow();
    const { all } = await queueUp(waiting);
    await coordinator.kill();
    await all;
    await untilOneQueue(waiting[2] as QueueProcess, waiting[3] as QueueProcess);
  });

  it('the queue goes on when the coordinator and the holder are killed', TIMEOUT, async (t) => {
    const path = database(t);
    const coordinator = await openCoordinator(t, path);
    const [holder, ...waiting] = (await openMembers(t, path, 4)) as [QueueProcess, ...QueueProcess[]];
    await holder.enterNow();
    const { all } = await queueUp(waiting);
    await Promise.all([coordinator.kill(), holder.kill()]);
    await all;
    await untilOneQueue(waiting[1] as QueueProcess, waiting[0] as QueueProcess);
  });

  it(
    'the queue goes on without a holder that is stopped, and takes it back afterwards',
    TIMEOUT,
    async (t) => {
      const path = database(t);
      await openCoordinator(t, path);
      const [holder, ...waiting] = (await openMembers(t, path, 3)) as [QueueProcess, ...QueueProcess[]];
      await holder.enterNow();
      const { order, all } = await queueUp(waiting);
      await holder.stop();
      const isGiven = await all;
      assert.deepEqual(isGiven ? order : order.toSorted((a, b) => a - b), [0, 1]);
      holder.goOn();
      await holder.leave();
      await untilOneQueue(holder, waiting[0] as QueueProcess);
    },
  );

  it('the queue goes on without a holder that never leaves', TIMEOUT, async (t) => {
    const path = database(t);
    const holder = await openCoordinator(t, path);
    const [waiting] = (await openMembers(t, path, 1)) as [QueueProcess];
    await holder.enterNow();
    await waiting.enterNow();
  });

  it(
    'the queue lets everybody try while the coordinator is stopped, and queues again afterwards',
    TIMEOUT,
    async (t) => {
      const path = database(t);
      const coordinator = await openCoordinator(t, path);
      const members = (await openMembers(t, path, 2)) as [QueueProcess, QueueProcess];
      await coordinator.stop();
      await Promise.all(members.map((member) => member.enterNow()));
      for (const member of members) {
        assert.equal(await member.request({ type: 'isCalm' }), true, 'nobody waits for it twice');
        await member.leave();
      }
      await (await QueueProcess.open(t, path)).enterNow();
      coordinator.goOn();
      await untilOneQueue(coordinator, members[0]);
      await untilOneQueue(members[0], members[1]);
    },
  );
});

describe('the socket of the queue', () => {
  const names = {
    'with spaces': 'my data.db',
    'in UTF-8': 'größe-数据-🗄.db',
    'that means something in a URI': 'a?mode=ro#b%20c&d.db',
    'that is long': `${'long'.repeat(50)}.db`,
  };
  for (const [what, name] of Object.entries(names)) {
    it(`the socket of the queue is beside a database with a name ${what}`, TIMEOUT, async (t) => {
      const path = database(t, name);
      await untilOneQueue(await openCoordinator(t, path), await QueueProcess.open(t, path));
    });
  }

  it('the socket of the queue is in a folder with a path of many bytes', TIMEOUT, async (t) => {
    const folder = join(tempDir(t), 'ü'.repeat(60), 'x'.repeat(60));
    mkdirSync(folder, { recursive: true });
    const path = makeDatabase(join(folder, 'app.db'));
    const coordinator = await openCoordinator(t, path);
    const member = await QueueProcess.open(t, path);
    await untilOneQueue(coordinator, member);
    await coordinator.close();
    await untilOneQueue(member, await QueueProcess.open(t, path));
    await member.close();
  });

  it('the socket of the queue is one of each database in a folder', TIMEOUT, async (t) => {
    const path = database(t);
    const other = makeDatabase(join(path, '..', 'other.db'));
    const [holder, free] = [await openCoordinator(t, path), await openCoordinator(t, other)];
    await holder.enterNow();
    await untilOneQueue(free, await QueueProcess.open(t, other));
    assert.equal(await holder.request({ type: 'isOver' }), false, 'nobody waits at this one');
  });

  it(
    'the socket of the queue is the same for all names by which the database is opened',
    TIMEOUT,
    async (t) => {
      const path = database(t);
      const link = join(tempDir(t), 'link.db');
      symlinkSync(path, link);
      await untilOneQueue(await openCoordinator(t, path), await QueueProcess.open(t, link));
    },
  );

  it(
    'the socket of the queue has the permissions of the database, not those of the umask',
    TIMEOUT,
    async (t) => {
      const path = database(t);
      const umask = process.umask(0);
      t.after(() => process.umask(umask));
      for (const mode of [0o600, 0o660, 0o644]) {
        chmodSync(path, mode);
        const coordinator = await openCoordinator(t, path);
        for (const file of [socketPath(path), `${socketPath(path)}-lock`]) {
          assert.equal(statSync(file).mode & 0o777, mode, file);
        }
        await coordinator.close();
      }
    },
  );

  it(
    "a file of another kind in the socket's place is left alone, and the queue is calm",
    TIMEOUT,
    async (t) => {
      const path = database(t);
      const target = join(tempDir(t), 'target');
      writeFileSync(target, 'somebody needs it');
      symlinkSync(target, socketPath(path));
      const processes = [await QueueProcess.open(t, path), await QueueProcess.open(t, path)];
      for (const process of processes) {
        await process.enterNow();
        assert.equal(await process.request({ type: 'isCalm' }), true);
      }
      for (const process of processes) await process.close();
      assert.equal(lstatSync(socketPath(path)).isSymbolicLink(), true);
      assert.equal(readFileSync(target, 'utf8'), 'somebody needs it');
    },
  );

  it("a database whose name leaves no room for the socket's has a calm queue", TIMEOUT, async (t) => {
    const path = join(tempDir(t), 'x'.repeat(240));
    writeFileSync(path, '');
    for (const process of [await QueueProcess.open(t, path), await QueueProcess.open(t, path)]) {
      await process.enterNow();
      assert.equal(await process.request({ type: 'isCalm' }), true);
    }
  });

  it(
    "the socket's place is empty after the last close, and after a program that just ended",
    TIMEOUT,
    async (t) => {
      const path = database(t);
      const folder = join(path, '..');
      const processes = [await openCoordinator(t, path), ...(await openMembers(t, path, 2))];
      await untilOneQueue(processes[1] as QueueProcess, processes[2] as QueueProcess);
      for (const process of processes) await process.close();
      assert.deepEqual(readdirSync(folder), ['app.db']);
      assert.deepEqual(await (await openCoordinator(t, path)).forget(), [0, null], 'nothing keeps it alive');
      assert.deepEqual(readdirSync(folder), ['app.db']);
    },
  );

  it(
    'the queue works and leaves nothing after twenty processes have come and gone, some by kill -9',
    TIMEOUT,
    async (t) => {
      const path = database(t);
      await Promise.all(
        Array.from({ length: 20 }, async (_, index) => {
          const member = await QueueProcess.open(t, path);
          await member.request({ type: 'write', path, transactions: 20 });
          await member.enterNow();
          await (index % 4 === 3 ? member.kill() : member.close());
        }),
      );
      const [first, second] = [await QueueProcess.open(t, path), await QueueProcess.open(t, path)];
      await untilOneQueue(first, second);
      await Promise.all([first.close(), second.close()]);
      const left = readdirSync(join(path, '..')).filter((name) => name.startsWith('.'));
      assert.deepEqual(left, []);
      const db = new Database(path);
      assert.equal(db.prepare('SELECT count(*) FROM t').pluck().get(), 400);
      db.close();
    },
  );
});

describe('a wait for the turn', () => {
  it('a wait for the turn ends when its signal aborts, and gives up the place', TIMEOUT, async (t) => {
    const path = database(t);
    const holder = await openCoordinator(t, path);
    await holder.enterByGrant();
    const admission = openAdmission(path);
    t.after(() => admission.close());
    const reason = new Error('no longer');
    await assert.rejects(admission.enter(AbortSignal.abort(reason)), reason);
    const controller = new AbortController();
    const waiting = admission.enter(controller.signal);
    await holder.untilOver();
    controller.abort(reason);
    await assert.rejects(waiting, reason);
    const next = await QueueProcess.open(t, path);
    const { turn } = await next.enter();
    await holder.leave();
    await turn;
    await next.leave();
    (await admission.enter()).leave();
  });

  it('a wait for the turn ends with CLOSED when the queue is closed', TIMEOUT, async (t) => {
    const path = database(t);
    const holder = await openCoordinator(t, path);
    await holder.enterByGrant();
    const admission = openAdmission(path);
    const waiting = admission.enter();
    await holder.untilOver();
    await admission.close();
    await assert.rejects(waiting, { code: 'CLOSED' });
    await assert.rejects(admission.enter(), { code: 'CLOSED' });
    await admission.close();
  });
});
