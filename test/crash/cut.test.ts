import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { runRelayed } from '../support/relay-near.ts';
import type { Ended, Role } from '../support/relay-near.ts';
import type { Direction } from '../support/relay.ts';
import { REPLICA_KINDS, Scenario } from '../support/relay-scenario.ts';
import type { ReplicaKind } from '../support/relay-scenario.ts';

const folder = mkdtempSync(join(tmpdir(), 'sqlsync-cut-'));
after(() => rmSync(folder, { recursive: true }));
const scenario = await Scenario.make(folder, { blobs: 400, pageSize: 4096 });

interface Case {
  role: Role;
  kind: ReplicaKind;
  direction: Direction;
}

/** The message after which the replica's side may commit, and its direction. */
const ROOT_DIRECTION = { pull: 'toNear', push: 'toFar' } as const;

const cases: Case[] = (['pull', 'push'] as const).flatMap((role) =>
  REPLICA_KINDS.flatMap((kind) =>
    (['toNear', 'toFar'] as const).map((direction) => ({ role, kind, direction })),
  ),
);

describe('a stream that ends cleanly between two messages', () => {
  for (const { role, kind, direction } of cases) {
    test(`a stream that ends between two messages is never success: ${role}, ${kind} replica, cut at every message ${direction}`, async () => {
      let last: Ended | undefined;
      for (let cutAt = 1; ; cutAt++) {
        const pair = scenario.pair(kind);
        let cut: string | undefined;
        let rootPassed = false;
        const ended = await runRelayed(role, pair, ({ direction: way, index, message }) => {
          if (way === direction && index === cutAt) {
            cut = message.type;
            return 'cut';
          }
          if (message.type === 'root') rootPassed = true;
          return [message];
        });
        if (cut === undefined) {
          assert.deepEqual([ended.near, ended.far], [undefined, undefined], 'a run without a cut');
          last = ended;
          break;
        }
        const where = `cut before ${direction} ${cutAt} (${cut})`;
        const state = scenario.state(kind, pair);
        check({ role, kind, direction }, { ...ended, cut, rootPassed, state }, where);
        if (state !== 'new') await scenario.converge(kind, role, pair);
      }
      assert.ok(last.seen.includes(`${ROOT_DIRECTION[role]} root`));
      assert.ok(last.seen.filter((name) => name.endsWith(' pages')).length >= 2, 'pages in several messages');
    });
  }
});

interface Outcome extends Ended {
  cut: string;
  rootPassed: boolean;
  state: string;
}

function check({ role, kind, direction }: Case, outcome: Outcome, where: string): void {
  const { near, far, cut, rootPassed, state } = outcome;
  if (!rootPassed) {
    assert.equal(state, scenario.before(kind), where);
    assert.ok(near !== undefined && far !== undefined, `${where}: success of an unfinished sync`);
    // The side that does not see the cut itself learns of the loss if the other side still can.
    assert.equal((direction === 'toNear' ? near : far).code, 'CONNECTION_LOST', where);
  }
  if (near === undefined) assert.equal(state, 'new', `${where}: success, and the replica is ${state}`);
  if (role === 'push' && direction === 'toNear') {
    assert.equal(near?.code, 'CONNECTION_LOST', `${where}: success without the confirmation`);
  }
  // Only `close` ends a conversation well.
  if (direction === 'toFar') {
    assert.equal(far?.code, 'CONNECTION_LOST', `${where}: the far agent ended well without ${cut}`);
  }
}
