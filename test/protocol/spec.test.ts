import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import * as limits from '../../protocol/limits.ts';
import {
  BATCH_ENCODINGS,
  COMPRESSION_MODES,
  READERS,
  HASH_ALGORITHMS,
  LEVEL_TOP,
  MESSAGES,
  OUTCOMES,
  PHASES,
} from '../../protocol/messages.ts';
import { DELTA_BASES } from '../../protocol/page-batch.ts';
import { STATES } from '../../protocol/states.ts';
import { MIN_PROTOCOL_VERSION, PREAMBLE, PROTOCOL_VERSION } from '../../protocol/version.ts';
import { OWN_HEADER_RANGES } from '../../src/pages/header.ts';
import { DEFINITIONS } from './oracle.ts';

const SPEC = readFileSync(join(import.meta.dirname, '..', '..', 'protocol', 'SPEC.md'), 'utf8');

/**
 * The hash of everything that decides what bytes mean, by protocol version. A change of it is a new version:
 * give it a new number, a new line here, its row in SPEC.md, and its golden frames (`node fixtures/wire.ts`).
 * The line of a released version never changes.
 */
const DEFINITION_HASHES: Record<number, string> = {
  1: 'e28a8735ab91e652',
  2: '9d0a91b12fa08f33',
};

describe('protocol/SPEC.md', () => {
  test('SPEC.md describes every message with its code, size class and direction, in the order of its code', () => {
    const found = [...SPEC.matchAll(/^### (\w+) \((\d+), (small|large), (.+)\)$/gm)].map(
      ([, name, code, size, direction]) => {
        assert.match(
          direction ?? '',
          /^(either → either|near → far|far → near|replica → origin|origin → replica)$/,
          `direction of ${name}`,
        );
        return { name, code: Number(code), size };
      },
    );
    const defined = DEFINITIONS.map(([name, { code, size }]) => ({ name, code, size }));
    assert.deepEqual(
      found,
      defined.sort((a, b) => a.code - b.code),
    );
  });

  for (const [name, { fields }] of DEFINITIONS) {
    test(`SPEC.md lists the fields of ${name} with their types, in the order in which they travel`, () => {
      const rows = table(section(new RegExp(`^### ${name} \\(`)));
      assert.deepEqual(
        rows.map(([field, type]) => [field, type]),
        Object.entries(fields),
      );
      for (const [field, , meaning] of rows) assert.ok(meaning, `${name}.${field} has no meaning`);
    });
  }

  for (const [heading, values] of Object.entries({
    'Hash algorithms': HASH_ALGORITHMS,
    Compression: COMPRESSION_MODES,
    Readers: READERS,
    Encodings: BATCH_ENCODINGS,
    Outcomes: OUTCOMES,
    Phases: PHASES,
  })) {
    test(`SPEC.md lists the values of “${heading}”`, () => {
      const rows = table(section(new RegExp(`^### ${heading}$`)));
      assert.deepEqual(Object.fromEntries(rows.map(([name, value]) => [name, Number(value)])), values);
    });
  }

  test('SPEC.md lists the states and the messages that each may receive', () => {
    const rows = table(section(/^## States$/));
    const listed = rows.map(([state, , names]) => [state, new Set(names?.split(', '))]);
    assert.deepEqual(
      listed,
      Object.entries(STATES).map(([state, names]) => [state, new Set<string>(names)]),
    );
  });

  test('SPEC.md lists every limit', () => {
    const rows = table(section(/^## Limits$/));
    const constants = Object.entries(limits).filter(([, value]) => typeof value === 'number');
    assert.deepEqual(
      Object.fromEntries(rows.map(([name, value]) => [name, Number(value)])),
      Object.fromEntries(constants),
    );
  });

  test('SPEC.md gives the sizes of the frame header, without gap or overlap', () => {
    const rows = table(section(/^## Frames$/));
    let offset = 0;
    for (const [start, bytes, field] of rows) {
      assert.equal(Number(start), offset, `offset of ${field}`);
      if (bytes !== '…') offset += Number(bytes);
    }
    assert.equal(offset, limits.FRAME_HEADER_BYTES);
  });

  test('SPEC.md gives the preamble, byte for byte', () => {
    const [, hex] = /^ {4}((?:[0-9a-f]{2} )+) /m.exec(section(/^## Preamble$/)) ?? [];
    assert.equal(Buffer.from((hex ?? '').replaceAll(' ', ''), 'hex').toString('latin1'), PREAMBLE);
  });

  test('SPEC.md lists the field types', () => {
    const used = new Set(DEFINITIONS.flatMap(([, { fields }]) => Object.values(fields)));
    const rows = new Set(table(section(/^## Field types$/)).map(([type]) => type?.replaceAll('`', '')));
    assert.deepEqual(
      [...used].filter((type) => !rows.has(type)),
      [],
    );
  });

  test('SPEC.md names the top level of databases of every size', () => {
    assert.match(section(/^### getHashes/), new RegExp(`\\b${LEVEL_TOP} is the \\[top level\\]`));
    let smallest = 0;
    for (const [pages, level] of table(section(/^### Top level$/))) {
      assert.equal(limits.topLevel(smallest), Number(level), `${smallest} pages`);
      assert.equal(limits.topLevel(Number(pages)), Number(level), `${pages} pages`);
      smallest = Number(pages) + 1;
    }
    assert.equal(smallest - 1, limits.MAX_PAGE_COUNT);
  });

  test('SPEC.md names the header bytes that are zero in hashes', () => {
    const rows = table(section(/^## Hash tree$/));
    const listed = rows.flatMap(([range]) => {
      const [first, last] = (range ?? '').split(' … ').map(Number) as [number, number];
      return Array.from({ length: last - first + 1 }, (_, i) => first + i);
    });
    const masked = OWN_HEADER_RANGES.flatMap(([first, end]) =>
      Array.from({ length: end - first }, (_, i) => first + i),
    );
    assert.deepEqual(listed, masked);
  });

  test('SPEC.md has a row for each version that this program speaks', () => {
    const versions = table(section(/^## Versions$/)).map(([version]) => Number(version));
    for (let version = MIN_PROTOCOL_VERSION; version <= PROTOCOL_VERSION; version++)
      assert.ok(versions.includes(version), `version ${version}`);
    assert.equal(Math.max(...versions), PROTOCOL_VERSION);
    assert.match(SPEC, new RegExp(`^# .*version ${PROTOCOL_VERSION}$`, 'm'));
  });

  test('SPEC.md links only to headings that it has', () => {
    const headings = new Set(
      [...SPEC.matchAll(/^#+ (.+)$/gm)].map(([, heading]) =>
        (heading ?? '')
          .toLowerCase()
          .replaceAll(/[^\w -]/g, '')
          .replaceAll(' ', '-'),
      ),
    );
    const links = [...SPEC.matchAll(/\]\(#([^)]+)\)/g)].map(([, anchor]) => anchor ?? '');
    assert.ok(links.length > 5);
    assert.deepEqual(
      links.filter((anchor) => !headings.has(anchor)),
      [],
    );
  });
});

test('the message definitions have not changed without a new protocol version', () => {
  const constants = Object.entries(limits).filter(([, value]) => typeof value === 'number');
  const definitions = {
    PREAMBLE,
    MESSAGES,
    HASH_ALGORITHMS,
    COMPRESSION_MODES,
    READERS,
    BATCH_ENCODINGS,
    DELTA_BASES,
    OUTCOMES,
    PHASES,
    LEVEL_TOP,
    STATES,
    limits: Object.fromEntries(constants.sort(([a], [b]) => (a < b ? -1 : 1))),
  };
  const hash = createHash('sha256').update(JSON.stringify(definitions)).digest('hex').slice(0, 16);
  assert.equal(
    hash,
    DEFINITION_HASHES[PROTOCOL_VERSION],
    `the wire changed: if version ${PROTOCOL_VERSION} was released, make a new one (see DEFINITION_HASHES); else pin ${hash}`,
  );
});

/** The text under the heading that matches, up to the next heading of any level. */
function section(heading: RegExp): string {
  const lines = SPEC.split('\n');
  const start = lines.findIndex((line) => line.startsWith('#') && heading.test(line));
  assert.notEqual(start, -1, `no heading ${heading.source}`);
  const length = lines.slice(start + 1).findIndex((line) => line.startsWith('#'));
  return lines.slice(start + 1, length === -1 ? undefined : start + 1 + length).join('\n');
}

/** The cells of the first table in `text`, without its head; empty if it has none. */
function table(text: string): string[][] {
  const lines = text.split('\n').map((line) => line.trim());
  const start = lines.findIndex((line) => /^\| -+ \|/.test(line) || /^\|( -+ \|)+$/.test(line));
  if (start === -1) return [];
  const rows: string[][] = [];
  for (const line of lines.slice(start + 1)) {
    if (!line.startsWith('|')) break;
    rows.push(
      line
        .slice(1, -1)
        .split('|')
        .map((cell) => cell.trim()),
    );
  }
  return rows;
}
