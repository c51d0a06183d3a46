import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { chooseMeasured } from '../../src/report/collect/store-report.ts';
import { MAX_CELLS, MAX_OWNERS, drawMap } from '../../src/report/page-map.ts';
import type { Comparison, PageMap } from '../../src/report/page-map.ts';
import { FREE, OTHERS, UNKNOWN, ownersOf, sizesOf } from '../../src/report/page-owners.ts';
import { MAX_PARTS, growthOf } from '../../src/report/report.ts';

function comparisonOf(given: Partial<Comparison> & { readonly pageCount: number }): Comparison {
  return { from: 'a', to: 'b', pageSize: 4096, owners: [], differing: [], ...given };
}

/** The owner's name and the change of each cell. */
function cellsOf({ runs, owners }: PageMap): [name: string | undefined, isChanged: boolean][] {
  return runs.flatMap(([owner, isChanged, count]) =>
    Array.from({ length: count }, (): [string | undefined, boolean] => [owners[owner]?.name, isChanged]),
  );
}

describe('the map of pages', () => {
  test('a small database has a cell for each page, with its owner and whether it changed', () => {
    const owners = ownersOf(5, [
      { page: 1, name: 'sqlite_schema' },
      { page: 2, name: 't' },
      { page: 3, name: 't' },
      { page: 5, name: 'i' },
    ]);
    const map = drawMap(
      comparisonOf({
        pageCount: 5,
        owners: [owners],
        differing: [
          [2, 2],
          [4, 5],
        ],
      }),
    );
    assert.deepEqual(cellsOf(map), [
      ['sqlite_schema', false],
      ['t', true],
      ['t', false],
      [FREE, true],
      ['i', true],
    ]);
    assert.deepEqual(
      map.owners.find(({ name }) => name === 't'),
      { name: 't', pages: 2, changed: 1 },
    );
    assert.equal(map.pagesChanged, 3);
  });

  test('a page that only the older state has counts for its owner there', () => {
    const older = ownersOf(
      3,
      [2, 3].map((page) => ({ page, name: 'gone' })),
    );
    const newer = ownersOf(2, [{ page: 2, name: 'new' }]);
    const map = drawMap(comparisonOf({ pageCount: 3, owners: [newer, older], differing: [[2, 3]] }));
    assert.deepEqual(cellsOf(map).slice(1), [
      ['new', true],
      ['gone', true],
    ]);
  });

  test('of any database it counts each page once, and stays small', () => {
    const input = fc.record({
      pageCount: fc.integer({ min: 0, max: 5 * MAX_CELLS }),
      tables: fc.integer({ min: 1, max: 2 * MAX_OWNERS }),
      first: fc.nat(),
      length: fc.nat({ max: 3000 }),
    });
    fc.assert(
      fc.property(input, ({ pageCount, tables, first, length }) => {
        const pages = Array.from({ length: pageCount }, (_, at) => ({
          page: at + 1,
          name: `t${at % tables}`,
        }));
        const start = pageCount === 0 ? 0 : (first % pageCount) + 1;
        const end = Math.min(pageCount, start + length);
        const differing: [number, number][] = pageCount === 0 ? [] : [[start, end]];
        const map = drawMap(comparisonOf({ pageCount, owners: [ownersOf(pageCount, pages)], differing }));
        const sum = (figures: readonly number[]): number => figures.reduce((all, each) => all + each, 0);
        const changed = pageCount === 0 ? 0 : end - start + 1;
        assert.equal(sum(map.owners.map((owner) => owner.pages)), pageCount);
        assert.equal(sum(map.owners.map((owner) => owner.changed)), changed);
        assert.equal(map.pagesChanged, changed);
        assert.ok(map.owners.length <= MAX_OWNERS);
        assert.equal(cellsOf(map).length, Math.ceil(pageCount / map.pagesPerCell));
        assert.ok(cellsOf(map).length <= MAX_CELLS);
        assert.ok(map.runs.every(([owner]) => map.owners[owner] !== undefined));
      }),
      { numRuns: 50 },
    );
  });

  test('one changed page shows among thousands', () => {
    const pageCount = 100 * MAX_CELLS;
    const map = drawMap(comparisonOf({ pageCount, differing: [[12_345, 12_345]] }));
    assert.deepEqual(
      map.runs.filter(([, isChanged]) => isChanged),
      [[0, true, 1]],
    );
    assert.equal(map.owners[0]?.name, UNKNOWN);
  });

  test('names of a damaged schema are taken as texts, and pages beyond the end are left out', () => {
    const owners = ownersOf(2, [
      { page: 1, name: null },
      { page: 2, name: 'x'.repeat(10_000) },
      { page: 3, name: 'beyond' },
      { page: 0, name: 'before' },
    ]);
    assert.deepEqual(
      owners.names.map(({ length }) => length),
      [FREE.length, 4, 300],
    );
    assert.deepEqual([...owners.ownerOf], [1, 2]);
  });
});

describe('growth', () => {
  test('has the bytes of each table at each moment, what changed most first', () => {
    const sizes = [
      sizesOf(
        ownersOf(
          3,
          [1, 2].map((page) => ({ page, name: 'a' })),
        ),
        512,
      ),
      sizesOf(
        ownersOf(
          6,
          [1, 2, 3, 4, 5].map((page) => ({ page, name: page < 3 ? 'a' : 'b' })),
        ),
        512,
      ),
    ];
    assert.deepEqual(growthOf(['x', 'y'], sizes), {
      moments: ['x', 'y'],
      parts: [
        { name: 'b', bytes: [0, 1536] },
        { name: 'a', bytes: [1024, 1024] },
        { name: FREE, bytes: [512, 512] },
      ],
    });
  });

  test('sums up the tables that it does not name', () => {
    const many = new Map(Array.from({ length: MAX_PARTS + 5 }, (_, at) => [`t${at}`, 1000 - at]));
    const { parts } = growthOf(['x'], [many]);
    assert.equal(parts.length, MAX_PARTS + 1);
    const summed = [...many.values()].slice(-5).reduce((all, each) => all + each, 0);
    assert.deepEqual(parts.at(-1), { name: OTHERS, bytes: [summed] });
  });
});

test('snapshots to measure are the compared ones, and others from the first on', () => {
  const all = Array.from({ length: 10 }, (_, at) => at);
  assert.deepEqual(chooseMeasured(all, [8, 9], 4), [0, 4, 8, 9]);
  assert.deepEqual(chooseMeasured(all, [8, 9], 1), [9]);
  assert.deepEqual(chooseMeasured(all, [8, 9], 0), []);
  assert.deepEqual(chooseMeasured(all, [3, 4], 99), all);
});
