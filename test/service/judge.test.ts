import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { judgeState } from '../../src/service/state/judge.ts';
import type { ServiceState, TargetState } from '../../src/service/state/state.ts';
import { withoutSecrets } from '../../src/service/state/state.ts';
import '../support/environment.ts';

const NOW = 1_800_000_000_000;
const MINUTE = 60_000;

function stateOf(target: Partial<TargetState>, service: Partial<ServiceState> = {}): ServiceState {
  const whole: TargetState = {
    origin: '/a.db',
    target: '/b.db',
    kind: 'replica',
    schedule: '15m',
    lateAfterMs: undefined,
    sinceAtMs: NOW - 60 * MINUTE,
    dueAtMs: NOW + MINUTE,
    failedInARow: 0,
    sizes: [],
    isFollowing: false,
    isGone: false,
    ...target,
  };
  const head = {
    version: 1,
    config: '/c.yaml',
    pid: 1,
    startedAtMs: 0,
    aliveAtMs: NOW,
    isRunning: true,
  } as const;
  return { ...head, ...service, targets: { x: whole } };
}

const FAILURE = { atMs: NOW, code: 'BUSY', message: 'it is locked' };

describe('a target', () => {
  const cases: readonly [what: string, target: Partial<TargetState>, isRunning: boolean, level: string][] = [
    ['that is not due yet is fine', { dueAtMs: NOW + 1 }, true, 'fine'],
    ['that is due now is fine', { dueAtMs: NOW - 4 * MINUTE }, true, 'fine'],
    ['that was due six minutes ago is late', { dueAtMs: NOW - 6 * MINUTE }, true, 'late'],
    [
      'that was due six minutes ago is late without a service, too',
      { dueAtMs: NOW - 6 * MINUTE },
      false,
      'late',
    ],
    [
      'that may be an hour late is fine',
      { dueAtMs: NOW - 6 * MINUTE, lateAfterMs: 60 * MINUTE },
      true,
      'fine',
    ],
    ['whose last run failed is failing', { failure: FAILURE, dueAtMs: NOW - 6 * MINUTE }, true, 'failing'],
    ['whose proof failed is failing', { proofFailure: FAILURE }, true, 'failing'],
    ['whose database is gone is gone', { isGone: true, failure: FAILURE }, true, 'gone'],
    [
      'that follows is fine, however long nothing changed',
      { kind: 'follow', isFollowing: true, successAtMs: 0 },
      true,
      'fine',
    ],
    ['that does not follow yet is fine', { kind: 'follow', sinceAtMs: NOW - MINUTE }, true, 'fine'],
    ['that should follow, and has not for an hour, is late', { kind: 'follow' }, true, 'late'],
  ];
  for (const [what, target, isRunning, level] of cases) {
    test(`a target ${what}`, () => {
      const status = judgeState(stateOf(target), isRunning, NOW);
      assert.equal(status.targets[0]?.level, level);
      assert.equal(status.level, level === 'gone' ? 'fine' : level);
      assert.equal(status.targets[0]?.why === undefined, level === 'fine');
    });
  }

  test('a follower whose service has died is late', () => {
    const state = stateOf({ kind: 'follow', isFollowing: true }, { aliveAtMs: NOW - 4 * MINUTE });
    assert.equal(judgeState(state, false, NOW).level, 'late');
    assert.equal(judgeState(state, true, NOW).level, 'fine');
  });

  test('a configuration that was not taken makes the status late', () => {
    const state = stateOf({}, { configFailure: FAILURE });
    assert.equal(judgeState(state, true, NOW).level, 'late');
  });

  test('the growth of a database is that since its oldest size', () => {
    const [target] = judgeState(
      stateOf({
        sizes: [
          [1, 100],
          [2, 90],
          [3, 160],
        ],
      }),
      true,
      NOW,
    ).targets;
    assert.deepEqual([target?.sizeBytes, target?.growthBytes], [160, 60]);
  });
});

test('places and messages are kept on one line, and without the login of a URL', () => {
  assert.equal(withoutSecrets('s3:https://key:secret@host/b'), 's3:https://…@host/b');
  assert.equal(withoutSecrets('a\nb\u001b[31m'), 'a ↵ b\ufffd[31m');
});
