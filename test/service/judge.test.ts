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

function movedIn(durationMs: number): TargetState['moved'] {
  return { bytes: 1, pagesChanged: 1, durationMs };
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
    [
      'that is being copied may take twice as long as the last time',
      { dueAtMs: NOW - 20 * MINUTE, runningSinceMs: NOW - 20 * MINUTE, moved: movedIn(8 * MINUTE) },
      true,
      'fine',
    ],
    [
      'that is being copied for longer is late',
      { dueAtMs: NOW - 22 * MINUTE, runningSinceMs: NOW, moved: movedIn(8 * MINUTE) },
      true,
      'late',
    ],
    ['with a copy from the future is late', { successAtMs: NOW + 2 * MINUTE }, true, 'late'],
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
      const status = judgeState(stateOf(target), isRunning ? 'runs' : 'none', NOW);
      assert.equal(status.targets[0]?.level, level);
      assert.equal(status.level, level === 'gone' ? 'fine' : level);
      assert.equal(status.targets[0]?.why === undefined, level === 'fine');
    });
  }

  test('a follower whose service has died is late', () => {
    const state = stateOf({ kind: 'follow', isFollowing: true }, { aliveAtMs: NOW - 4 * MINUTE });
    assert.equal(judgeState(state, 'none', NOW).level, 'late');
    assert.equal(judgeState(state, 'runs', NOW).level, 'fine');
  });

  test('a service that was killed, or does not answer, makes the status late', () => {
    const state = stateOf({}, { aliveAtMs: NOW - 4 * MINUTE });
    const levels = (['runs', 'silent', 'none'] as const).map((life) => judgeState(state, life, NOW).level);
    assert.deepEqual(levels, ['fine', 'late', 'late']);
    assert.equal(judgeState({ ...state, isRunning: false }, 'none', NOW).level, 'fine', 'it was stopped');
  });

  test('a folder that is not there makes the status failing, and one without databases late', () => {
    const entry = { entry: '/srv/*', databases: 0, why: 'It is so.' };
    for (const level of ['failing', 'late', 'fine'] as const) {
      const status = judgeState(stateOf({}, { entries: [{ ...entry, level }] }), 'runs', NOW);
      assert.deepEqual([status.level, status.troubles], [level, ['/srv/*: It is so.']]);
    }
  });

  test('a configuration that was not taken makes the status late', () => {
    const state = stateOf({}, { configFailure: FAILURE });
    assert.equal(judgeState(state, 'runs', NOW).level, 'late');
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
      'runs',
      NOW,
    ).targets;
    assert.deepEqual([target?.sizeBytes, target?.growthBytes], [160, 60]);
  });
});

test('places and messages are kept on one line, and without the login of a URL', () => {
  assert.equal(withoutSecrets('s3:https://key:secret@host/b'), 's3:https://…@host/b');
  assert.equal(withoutSecrets('at http://k:a@b/c@host/x'), 'at http://…@host/x');
  assert.equal(withoutSecrets('a\nb\u001b[31m'), 'a ↵ b\ufffd[31m');
});
