import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { RETENTION_ZONE } from '../../fixtures/retention.ts';
import {
  PERIODS,
  beforeBy,
  formatCalendarSpan,
  formatCalendarTime,
  parseCalendarSpan,
  parseCalendarTime,
} from '../../src/backup/snapshots/calendar-time.ts';
import type { CalendarSpan, CalendarTime } from '../../src/backup/snapshots/calendar-time.ts';

process.env['TZ'] = RETENTION_ZONE;

function time(text: string): CalendarTime {
  return parseCalendarTime(text) as CalendarTime;
}

function before(text: string, span: string): string {
  return new Date(beforeBy(time(text), parseCalendarSpan(span) as CalendarSpan)).toISOString();
}

describe('calendar time', () => {
  test('weeks are those of ISO 8601', () => {
    const weeks = {
      '2018-12-30': '2018-W52',
      '2018-12-31': '2019-W1',
      '2020-12-31': '2020-W53',
      '2021-01-03': '2020-W53',
      '2021-01-04': '2021-W1',
      '2022-01-02': '2021-W52',
      '2024-12-29': '2024-W52',
      '2024-12-30': '2025-W1',
      '2026-11-21': '2026-W47',
    };
    for (const [day, week] of Object.entries(weeks)) {
      assert.equal(PERIODS.week(time(`${day}T23:59:59+13:00`)), week, day);
    }
  });

  test('days are counted back on the clock of this zone, over the turns of summer time', () => {
    assert.equal(before('2025-04-06T12:00:00+02:00', '7d'), '2025-03-30T10:00:00.000Z');
    assert.equal(before('2025-04-06T12:00:00+02:00', '8d'), '2025-03-29T11:00:00.000Z');
    assert.equal(before('2025-04-06T12:00:00+02:00', '8d1h'), '2025-03-29T10:00:00.000Z');
    // The offset is all that is known of another zone.
    assert.equal(before('2025-04-06T10:00:00Z', '8d'), '2025-03-29T10:00:00.000Z');
    assert.equal(before('2025-04-06T12:00:00-05:00', '8d'), '2025-03-29T17:00:00.000Z');
  });

  test('a month before a day that its month does not have runs over into the next', () => {
    assert.equal(before('2025-03-31T12:00:00Z', '1m'), '2025-03-03T12:00:00.000Z');
    assert.equal(before('2024-02-29T12:00:00Z', '1y'), '2023-03-01T12:00:00.000Z');
    assert.equal(before('2024-01-15T12:00:00Z', '1y1m15d'), '2022-11-30T12:00:00.000Z');
  });

  test('a time that a clock writes is read as the same instant, with its offset', () => {
    fc.assert(
      fc.property(fc.date({ min: new Date(0), max: new Date('2100-01-01'), noInvalidDate: true }), (date) => {
        const read = time(formatCalendarTime(date));
        assert.equal(read.epochMs, date.getTime());
        assert.equal(read.offsetMinutes, -date.getTimezoneOffset());
      }),
    );
  });

  test('RFC 3339 times may have any number of decimals, and anything else is refused', () => {
    assert.equal(time('2024-05-01T12:00:00.123456789+02:00').epochMs, Date.parse('2024-05-01T10:00:00.123Z'));
    for (const text of [
      '',
      '2024-05-01',
      '2024-05-01T12:00:00',
      '2024-13-01T12:00:00Z',
      '1 May 2024',
      'now',
    ]) {
      assert.equal(parseCalendarTime(text), undefined, text);
    }
  });

  test('a span has every unit at most once, and nothing else', () => {
    assert.deepEqual(parseCalendarSpan('1y5m7d2h'), { years: 1, months: 5, days: 7, hours: 2 });
    assert.deepEqual(parseCalendarSpan(' 2h1y '), { years: 1, months: 0, days: 0, hours: 2 });
    assert.equal(formatCalendarSpan(parseCalendarSpan('2h1y0d') as CalendarSpan), '1y2h');
    for (const text of ['', 'd', '7', '-1d', '1d 2h', '1d1d', '1w', '1.5d', '1e3d', '9999999d']) {
      assert.equal(parseCalendarSpan(text), undefined, text);
    }
  });
});
