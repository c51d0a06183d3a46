import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { lastMomentOf } from '../../src/backup/snapshots/time-limit.ts';

/** What the user asks for in a zone, and the last millisecond that it means. */
type Moments = Readonly<Record<string, readonly (readonly [text: string, last: string])[]>>;

function assertMoments(t: TestContext, moments: Moments): void {
  const { TZ } = process.env;
  t.after(() => {
    if (TZ === undefined) delete process.env['TZ'];
    else process.env['TZ'] = TZ;
  });
  for (const [zone, pairs] of Object.entries(moments)) {
    process.env['TZ'] = zone;
    for (const [text, last] of pairs) {
      const found = lastMomentOf(text);
      assert.equal(found === undefined ? undefined : new Date(found).toISOString(), last, `${zone} ${text}`);
    }
  }
}

describe('the last moment that STORE#TIME means', () => {
  test('STORE#DAY means the end of the day, also where midnight is skipped or comes twice', (t) => {
    assertMoments(t, {
      // Clocks go from 24:00 to 1:00.
      'America/Santiago': [
        ['2025-09-06', '2025-09-07T03:59:59.999Z'],
        ['2025-09-07', '2025-09-08T02:59:59.999Z'],
        // And back from 24:00 to 23:00.
        ['2025-04-05', '2025-04-06T03:59:59.999Z'],
        ['2025-04-06', '2025-04-07T03:59:59.999Z'],
      ],
      'America/Havana': [
        ['2025-03-08', '2025-03-09T04:59:59.999Z'],
        ['2025-03-09', '2025-03-10T03:59:59.999Z'],
        // Back from 1:00 to 0:00: the day begins with the first of its two midnights.
        ['2025-11-01', '2025-11-02T03:59:59.999Z'],
        ['2025-11-02', '2025-11-03T04:59:59.999Z'],
      ],
      'Africa/Cairo': [
        ['2025-04-24', '2025-04-24T21:59:59.999Z'],
        ['2025-04-25', '2025-04-25T20:59:59.999Z'],
        ['2025-10-30', '2025-10-30T21:59:59.999Z'],
      ],
      'Asia/Beirut': [
        ['2025-03-29', '2025-03-29T21:59:59.999Z'],
        ['2025-03-30', '2025-03-30T20:59:59.999Z'],
        ['2025-10-25', '2025-10-25T21:59:59.999Z'],
      ],
      // The zone left this day out.
      'Pacific/Apia': [
        ['2011-12-29', '2011-12-30T09:59:59.999Z'],
        ['2011-12-30', '2011-12-30T09:59:59.999Z'],
        ['2011-12-31', '2011-12-31T09:59:59.999Z'],
      ],
      'Europe/Berlin': [
        ['2025-03-30', '2025-03-30T21:59:59.999Z'],
        ['2025-10-26', '2025-10-26T22:59:59.999Z'],
        ['2024-02-29', '2024-02-29T22:59:59.999Z'],
      ],
      UTC: [['2025-09-07', '2025-09-07T23:59:59.999Z']],
    });
  });

  test('STORE#TIME means the second of two moments, if the clock showed a time twice', (t) => {
    assertMoments(t, {
      'America/New_York': [
        ['2025-11-02T01:30', '2025-11-02T06:30:59.999Z'],
        ['2025-11-02T01:30:10', '2025-11-02T06:30:10.999Z'],
        ['2025-11-02T01:30-04:00', '2025-11-02T05:30:59.999Z'],
        ['2025-11-02T00:59', '2025-11-02T04:59:59.999Z'],
        ['2025-11-02T02:00', '2025-11-02T07:00:59.999Z'],
      ],
      'America/Havana': [['2025-11-02T00:30', '2025-11-02T05:30:59.999Z']],
      'Africa/Cairo': [['2025-10-30T23:30', '2025-10-30T21:30:59.999Z']],
      'Australia/Lord_Howe': [['2025-04-06T01:45', '2025-04-05T15:15:59.999Z']],
    });
  });

  test('STORE#TIME means the moment of the turn, if the clock never showed it', (t) => {
    assertMoments(t, {
      'America/New_York': [
        ['2025-03-09T01:59', '2025-03-09T06:59:59.999Z'],
        ['2025-03-09T02:30', '2025-03-09T06:59:59.999Z'],
        ['2025-03-09T02:59:59.999', '2025-03-09T06:59:59.999Z'],
        ['2025-03-09T03:00', '2025-03-09T07:00:59.999Z'],
      ],
      'America/Santiago': [['2025-09-07T00:30', '2025-09-07T03:59:59.999Z']],
      'Australia/Lord_Howe': [['2025-10-05T02:15', '2025-10-04T15:29:59.999Z']],
    });
  });

  test('STORE#TIME is as exact as the text', (t) => {
    assertMoments(t, {
      'Europe/Berlin': [
        ['2026-11-21T08:00', '2026-11-21T07:00:59.999Z'],
        ['2026-11-21 08:00:05', '2026-11-21T07:00:05.999Z'],
        ['2026-11-21T08:00:05.2', '2026-11-21T07:00:05.299Z'],
        ['2026-11-21T08:00:05.250', '2026-11-21T07:00:05.250Z'],
        ['2026-11-21T08:00:05.250999', '2026-11-21T07:00:05.250Z'],
        ['2026-11-21T08:00Z', '2026-11-21T08:00:59.999Z'],
        ['2026-11-21 08:00:05+05:30', '2026-11-21T02:30:05.999Z'],
      ],
    });
  });

  test('STORE#TIME means a moment also in a zone without a name', (t) => {
    assertMoments(t, {
      '/usr/share/zoneinfo/America/Santiago': [['2025-09-07', '2025-09-08T02:59:59.999Z']],
      'UTC+3': [
        ['2025-09-07', '2025-09-08T02:59:59.999Z'],
        ['2025-09-07T08:00', '2025-09-07T11:00:59.999Z'],
      ],
    });
  });

  test('a text that no calendar or clock shows means no moment', () => {
    for (const text of [
      '',
      '2025-02-29',
      '2025-13-01',
      '2025-09-07T24:00',
      '2025-09-07T08:60',
      '2025-09-07T08',
      '1a2b',
    ])
      assert.equal(lastMomentOf(text), undefined, text);
  });
});
