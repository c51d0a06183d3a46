import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Facts } from '../../src/doctor/facts.ts';
import { judge } from '../../src/doctor/judge/judge.ts';
import { presentReport } from '../../src/cli/doctor/present-report.ts';
import { findingOf, ids } from './holders.ts';
import { A_FILE, FACTS, HEADER } from './some-facts.ts';

const ROLLBACK: Facts = { ...FACTS, header: { ...HEADER, isWal: false } };
const JOURNAL = { ...A_FILE, isUnfinished: true, isHot: true };

describe('the judgement of facts', () => {
  test('doctor finds nothing wrong with an idle database', () => {
    assert.deepEqual(judge(FACTS), []);
    assert.match(presentReport({ facts: FACTS, findings: [] }, 'a.db'), /No process has it open\./);
  });

  test('where not all locks are seen, their absence proves no killed writer', () => {
    const unseen = ['Something is not seen.'];
    const states: Record<string, Facts> = {
      'hot-journal': { ...ROLLBACK, journal: JOURNAL },
      'wal-beside-rollback': { ...ROLLBACK, wal: { isInUse: false, file: A_FILE } },
      'wal-without-process': { ...FACTS, wal: { isInUse: false, file: A_FILE } },
    };
    for (const [id, facts] of Object.entries(states)) {
      assert.equal(findingOf(judge(facts), id).severity, id === 'wal-without-process' ? 'advice' : 'danger');
      for (const sight of ['some', 'files'] as const) {
        const limited = { ...facts, sight, unseen };
        const findings = judge(limited);
        assert.equal(findingOf(findings, id).severity, 'advice', `${id} ${sight}`);
        assert.match(findingOf(findings, id).meaning, /only if no program uses the database/);
        const page = presentReport({ facts: limited, findings }, 'a.db');
        assert.doesNotMatch(page, /No process has|no process has|A killed writer left/);
      }
    }
  });

  test('the same facts with nothing unseen keep their worst words', () => {
    const found = judge({ ...ROLLBACK, journal: JOURNAL });
    assert.deepEqual(ids(found), ['hot-journal']);
    assert.match(findingOf(found, 'hot-journal').title, /^A killed writer left /);
  });
});
