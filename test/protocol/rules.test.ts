import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import {
  MAX_PAGE_COUNT,
  MAX_TOP_NODES,
  MIN_TOP_LEVEL,
  TREE_FANOUT,
  topLevel,
} from '../../protocol/limits.ts';
import { MESSAGES } from '../../protocol/messages.ts';
import type { MessageName } from '../../protocol/messages.ts';
import { isLegal, STATES } from '../../protocol/states.ts';
import type { State } from '../../protocol/states.ts';
import { negotiateVersion } from '../../protocol/version.ts';

describe('the top level', () => {
  test('the top level is the lowest, from 2 on, whose nodes fit the first pass', () => {
    const pages = fc.oneof(
      fc.nat({ max: MAX_PAGE_COUNT }),
      fc
        .tuple(fc.nat({ max: 3 }), fc.integer({ min: -1, max: 1 }))
        .map(([level, off]) => MAX_TOP_NODES * TREE_FANOUT ** (level + 2) + off)
        .filter((count) => count <= MAX_PAGE_COUNT),
    );
    fc.assert(
      fc.property(pages, (count) => {
        const level = topLevel(count);
        assert.ok(level >= MIN_TOP_LEVEL);
        assert.ok(Math.ceil(count / TREE_FANOUT ** level) <= MAX_TOP_NODES);
        if (level > MIN_TOP_LEVEL) assert.ok(Math.ceil(count / TREE_FANOUT ** (level - 1)) > MAX_TOP_NODES);
      }),
      { numRuns: 500 },
    );
  });
});

describe('the version of a conversation', () => {
  const range = fc
    .tuple(fc.integer({ min: 0, max: 9 }), fc.integer({ min: 0, max: 9 }))
    .map(([min, max]) => ({ min, max }));
  const ownRange = range.filter(({ min, max }) => min <= max);

  test('the version of a conversation is the newest that both speak, and none if they share none', () => {
    fc.assert(
      fc.property(ownRange, range, (own, peer) => {
        const common = [...Array(10).keys()].filter(
          (version) => version >= Math.max(own.min, peer.min) && version <= Math.min(own.max, peer.max),
        );
        assert.equal(negotiateVersion(own, peer), common.at(-1));
      }),
      { numRuns: 1000 },
    );
  });

  test('the version of a conversation is the same for both sides', () => {
    fc.assert(
      fc.property(ownRange, ownRange, (own, peer) =>
        assert.equal(negotiateVersion(own, peer), negotiateVersion(peer, own)),
      ),
    );
  });
});

describe('the states', () => {
  const names = Object.keys(MESSAGES) as MessageName[];
  const states = Object.keys(STATES) as State[];

  test('the states name only messages that exist', () => {
    assert.deepEqual(
      states.flatMap((state) => STATES[state].filter((name) => !names.includes(name))),
      [],
    );
  });

  test('the states allow exactly the messages that they list', () => {
    for (const state of states) {
      const legal = names.filter((name) => isLegal(state, name));
      assert.deepEqual(new Set<string>(legal), new Set<string>(STATES[state]), state);
    }
  });

  test('the states let every message arrive somewhere, and an error everywhere', () => {
    for (const name of names)
      assert.ok(
        states.some((state) => isLegal(state, name)),
        name,
      );
    for (const state of states) assert.ok(isLegal(state, 'error'), state);
  });

  test('the states take the greeting once', () => {
    assert.deepEqual(
      states.filter((state) => isLegal(state, 'hello')),
      ['greeting'],
    );
  });
});
