import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { message } from '../../protocol/encode.ts';
import { MAX_BODY_BYTES, MAX_PAGE_COUNT, topLevel } from '../../protocol/limits.ts';
import { BATCH_ENCODINGS, MESSAGES } from '../../protocol/messages.ts';
import type { Message } from '../../protocol/messages.ts';
import { PROTOCOL_VERSION } from '../../protocol/version.ts';
import type { ErrorCode, SqlsyncError } from '../../src/errors.ts';
import { Connection } from '../../src/sync/link/connection.ts';
import { runFarAgent } from '../../src/sync/agents/far-agent.ts';
import { memoryTransportPair } from '../../src/transport/memory.ts';
import { runRelayed } from '../support/relay-near.ts';
import type { Role } from '../support/relay-near.ts';
import type { Direction, Passing, Verdict } from '../support/relay.ts';
import { REPLICA_KINDS, Scenario } from '../support/relay-scenario.ts';
import type { ReplicaKind } from '../support/relay-scenario.ts';

const folder = mkdtempSync(join(tmpdir(), 'sqlsync-hostile-'));
after(() => rmSync(folder, { recursive: true }));
const scenario = await Scenario.make(folder, { blobs: 40, pageSize: 4096 });

const ROLES = ['pull', 'push'] as const;

/** The side that receives the origin agent's messages, and the one that receives the replica agent's. */
const TO_REPLICA = { pull: 'toNear', push: 'toFar' } as const;
const TO_ORIGIN = { pull: 'toFar', push: 'toNear' } as const;

/**
 * The side that notices the tampering is the agent that receives the message. It tells the other, which
 * reports the same.
 */
interface Expected {
  code: ErrorCode;
  message: RegExp;
}

/**
 * Runs a sync with another message in the place of the first one of this type and direction; both sides must
 * refuse.
 */
async function tamper(
  role: Role,
  kind: ReplicaKind,
  direction: Direction,
  type: Message['type'],
  replace: (original: Message) => Verdict,
  expected: Expected,
  options: { each?: boolean } = {},
): Promise<void> {
  const pair = scenario.pair(kind);
  let tampered = 0;
  const decide = (passing: Passing): Verdict => {
    const isMeant = passing.direction === direction && passing.message.type === type;
    if (!isMeant || (tampered > 0 && options.each !== true)) return [passing.message];
    tampered++;
    return replace(passing.message);
  };
  const { near, far } = await runRelayed(role, pair, decide);
  const where = `${role}, ${kind} replica`;
  assert.ok(tampered > 0, `${where}: no ${type} came by`);
  const victim = direction === 'toNear' ? near : far;
  assertFailure(victim, expected, where);
  assert.equal(
    (direction === 'toNear' ? far : near)?.code,
    expected.code,
    `${where}: what the other was told`,
  );
  assert.equal(scenario.state(kind, pair), scenario.before(kind), where);
  await scenario.converge(kind, role, pair);
}

function assertFailure(failure: SqlsyncError | undefined, expected: Expected, where: string): void {
  assert.ok(failure !== undefined, `${where}: success`);
  assert.equal(failure.code, expected.code, `${where}: ${failure.message}`);
  assert.match(failure.message, expected.message, where);
}

function flipped(bytes: Uint8Array, at: number): Uint8Array {
  const copy = new Uint8Array(bytes);
  copy[at] = (copy[at] ?? 0) ^ 1;
  return copy;
}

function as<T extends Message['type']>(type: T, original: Message): Extract<Message, { type: T }> {
  assert.equal(original.type, type);
  return original as Extract<Message, { type: T }>;
}

describe('the messages that a replica agent receives', () => {
  for (const role of ROLES) {
    const direction = TO_REPLICA[role];
    for (const kind of REPLICA_KINDS) {
      test(`a wrong root hash, again and again, is ROOT_MISMATCH (${role}, ${kind} replica)`, () =>
        tamper(
          role,
          kind,
          direction,
          'root',
          (original) => [{ ...as('root', original), hash: flipped(as('root', original).hash, 0) }],
          { code: 'ROOT_MISMATCH', message: /root hash/ },
          { each: true },
        ));

      test(`one flipped bit of a page, in a valid frame, is refused (${role}, ${kind} replica)`, () =>
        tamper(
          role,
          kind,
          direction,
          'pages',
          (original) => {
            const pages = as('pages', original);
            return [{ ...pages, data: flipped(pages.data, pages.data.length - 1) }];
          },
          { code: 'ROOT_MISMATCH', message: /root hash|Page \d+ arrived with another hash/ },
          { each: true },
        ));
    }

    test(`a page 1 that is no database is PROTOCOL: no other file is ever made (${role})`, () =>
      tamper(
        role,
        'new',
        direction,
        'pages',
        (original) => {
          const pages = as('pages', original);
          const firstPageAt = (pages.data.length / 4097) | 0;
          return [{ ...pages, data: flipped(pages.data, firstPageAt) }];
        },
        { code: 'PROTOCOL', message: /page 1 that is not the first of a database with pages of 4096 bytes/ },
      ));

    const refused = (
      name: string,
      type: Message['type'],
      replace: (original: Message) => Verdict,
      expected: RegExp,
    ): void => {
      test(`${name} is PROTOCOL (${role})`, () =>
        tamper(role, 'wal', direction, type, replace, { code: 'PROTOCOL', message: expected }));
    };

    refused(
      'a message in the wrong state (pages before a snapshot)',
      'snapshot',
      (original) => [
        message('pages', { id: 1, encoding: BATCH_ENCODINGS.raw, rawBytes: 0, data: new Uint8Array() }),
        original,
      ],
      /sent pages in state opening/,
    );
    refused(
      'a question for an origin agent (getRoot)',
      'hashes',
      (original) => [message('getRoot', {}), original],
      /sent getRoot in state driving/,
    );
    refused(
      'an answer without a question (hashes)',
      'hashes',
      (original) => [{ ...as('hashes', original), id: 4711 }],
      /hashes that was not asked for/,
    );
    refused(
      'an answer without a question (pages)',
      'pages',
      (original) => [{ ...as('pages', original), id: 4711 }],
      /pages that was not asked for/,
    );
    refused(
      'an answer without a question (the root hash)',
      'snapshot',
      (original) => [
        original,
        message('root', { hash: new Uint8Array(8), snapshotHeldMs: 0, walGrowthBytes: 0 }),
      ],
      /the root hash that was not asked for/,
    );
    refused(
      'the same answer twice (pages)',
      'pages',
      (original) => [original, original],
      /pages that was not asked for|sent pages in state/,
    );
    refused(
      'an answer with more hashes than asked for',
      'hashes',
      (original) => [{ ...as('hashes', original), data: new Uint8Array(8 * 64) }],
      /not asked for/,
    );
    refused(
      'a batch that declares more bytes than were asked for',
      'pages',
      (original) => [
        {
          ...as('pages', original),
          encoding: BATCH_ENCODINGS.zstd,
          rawBytes: 2 ** 31,
          data: new Uint8Array(64),
        },
      ],
      /2147483648|batch/,
    );
    refused(
      'a page batch that ends too early',
      'pages',
      (original) => {
        const pages = as('pages', original);
        const data = pages.data.subarray(0, pages.data.length - 7);
        return [{ ...pages, data, rawBytes: data.length }];
      },
      /batch/,
    );
    refused(
      'a frame that declares more than any may have',
      'pages',
      () => [header({ code: MESSAGES.pages.code, sequence: 3, bodyBytes: MAX_BODY_BYTES + 1 })],
      /Protocol violation/,
    );
    refused(
      'a snapshot of one page more than there is',
      'snapshot',
      (original) => [{ ...as('snapshot', original), pageCount: as('snapshot', original).pageCount + 1 }],
      /too few hashes/,
    );
    refused(
      'a snapshot with hashes of another width',
      'snapshot',
      (original) => [{ ...as('snapshot', original), hashBytes: 7 }],
      /hashes of 7 bytes, not 8/,
    );
    refused(
      'a restore that nobody asked for',
      'snapshot',
      (original) => [{ ...as('snapshot', original), restoring: true }],
      /a restore, which --overwrite would have to ask for/,
    );
    refused(
      'a path that would fill the mark',
      'snapshot',
      (original) => [{ ...as('snapshot', original), originPath: '\u0001'.repeat(4097) }],
      /path that is too long/,
    );
    test(`hashes for a new replica, which asked for none, are PROTOCOL (${role})`, () =>
      tamper(
        role,
        'new',
        direction,
        'snapshot',
        (original) => [original, message('hashes', { id: 0, first: 0, data: new Uint8Array(8) })],
        { code: 'PROTOCOL', message: /hashes that was not asked for/ },
      ));
    refused(
      'a page size that does not exist',
      'snapshot',
      (original) => [{ ...as('snapshot', original), pageSize: 1000 }],
      /pages of 1000 bytes/,
    );
  }
});

describe('the messages that an origin agent receives', () => {
  for (const role of ROLES) {
    const refused = (
      name: string,
      type: Message['type'],
      replace: (original: Message) => Verdict,
      expected: RegExp,
    ): void => {
      test(`${name} is PROTOCOL (${role})`, () =>
        tamper(role, 'wal', TO_ORIGIN[role], type, replace, { code: 'PROTOCOL', message: expected }));
    };

    refused(
      'a message in the wrong state (getRoot before open)',
      'open',
      (original) => [message('getRoot', {}), original],
      /getRoot/,
    );
    refused(
      'a question for pages beyond the end',
      'getPages',
      (original) => [{ ...as('getPages', original), pages: [2 ** 40] }],
      /number \d+ in a list/,
    );
    refused(
      'a question for page 0',
      'getPages',
      (original) => [{ ...as('getPages', original), pages: [0], blockHashes: new Uint8Array() }],
      /page 0/,
    );
    refused(
      'a question for nodes beyond the end',
      'getHashes',
      (original) => [{ ...as('getHashes', original), first: 0, count: 2 ** 31 }],
      /nodes/,
    );
    refused(
      'a question for a level that no database has, which would be one uninterrupted pass over all pages,',
      'getHashes',
      (original) => [{ ...as('getHashes', original), level: 6 }],
      /level 6; the highest is 5/,
    );
    refused(
      'a question for children at the highest level',
      'getChildren',
      (original) => [{ ...as('getChildren', original), level: 5 }],
      /children of level 5/,
    );
    refused(
      'an answer (hashes)',
      'getRoot',
      () => [message('hashes', { id: 1, first: 0, data: new Uint8Array(8) })],
      /sent hashes in state serving/,
    );
  }
});

test('a limit of shrinkage that is no percentage is refused, and nothing is written', async () => {
  const pair = scenario.pair('wal');
  const { far } = await runRelayed('push', pair, ({ message: sent }) => [
    sent.type === 'replicate' ? { ...sent, maxShrinkPercent: 101 } : sent,
  ]);
  assert.equal(far?.code, 'PROTOCOL');
  assert.match(far.message, /101 as maxShrinkPercent/);
  assert.equal(scenario.state('wal', pair), 'old');
});

test('a question for the level of a larger database, as verify has to ask it, is answered', async () => {
  const [near, far] = memoryTransportPair();
  const ended = runFarAgent(far, { idleTimeoutMs: 0 });
  const connection = new Connection(near, 'opening', { idleTimeoutMs: 20_000 });
  const texts = { path: scenario.origin, replicaHost: '', replicaPath: '', replicaFileId: '' };
  const modes = { key: new Uint8Array(16), hash: 1, compression: 0, overwrite: false, reader: 0 };
  const knownStamp = new Uint8Array(0);
  const limits = {
    busyTimeoutMs: 0,
    idleTimeoutMs: 0,
    maxTimeMs: 0,
    maxSnapshotMs: 0,
    maxWalGrowthBytes: 0,
    lookEveryMs: 0,
  };
  connection.send(message('open', { ...texts, ...modes, knownStamp, ...limits }));
  const { pageCount } = await connection.receiveOnly('snapshot');
  connection.state = 'driving';
  connection.send(message('getHashes', { id: 1, level: topLevel(MAX_PAGE_COUNT), first: 0, count: 0 }));
  assert.equal((await connection.receiveOnly('hashes')).data.length, 8);
  const none = {
    pagesCompared: 0,
    pagesChanged: 0,
    pagesTransferred: 0,
    pagesDelta: 0,
    warnings: [],
    findings: [],
  };
  const flags = { outcome: 0, created: false, resumed: false, quick: false };
  connection.send(message('done', { pageSize: 4096, pageCount, ...none, ...flags }));
  connection.send(message('close', {}));
  connection.end();
  await ended;
});

describe('a hello', () => {
  const hello = (minVersion: number, maxVersion: number): Message =>
    message('hello', { minVersion, maxVersion, program: 'sqlsync 99\u001b[31m' });

  for (const direction of ['toNear', 'toFar'] as const) {
    for (const [name, versions] of [
      ['only newer', hello(PROTOCOL_VERSION + 1, PROTOCOL_VERSION + 9)],
      ['only older', hello(0, 0)],
    ] as const) {
      test(`a hello of ${name} versions is PROTOCOL_VERSION, with both sides' versions (${direction})`, async () => {
        const { minVersion, maxVersion } = as('hello', versions);
        await tamper('pull', 'wal', direction, 'hello', () => [versions], {
          code: 'PROTOCOL_VERSION',
          message: new RegExp(
            `sqlsync 99\ufffd\\[31m\\) speaks protocol ${minVersion} to ${maxVersion}, .* ${PROTOCOL_VERSION} to ${PROTOCOL_VERSION}`,
          ),
        });
      });
    }
    test(`a hello that never comes is PROTOCOL (${direction})`, () =>
      tamper('pull', 'wal', direction, 'hello', () => [message('close', {})], {
        code: 'PROTOCOL',
        message: /sent close in state greeting/,
      }));
    test(`the header of a large message in the place of a hello is PROTOCOL before the body comes (${direction})`, () =>
      tamper(
        'pull',
        'wal',
        direction,
        'hello',
        () => [header({ code: MESSAGES.pages.code, sequence: 0, bodyBytes: MAX_BODY_BYTES })],
        { code: 'PROTOCOL', message: /sent pages in state greeting/ },
      ));
  }
});

/** The header of a frame without its body; the reader looks at nothing behind the declared length. */
function header(frame: { code: number; sequence: number; bodyBytes: number }): Uint8Array {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, frame.bodyBytes, true);
  view.setUint8(4, frame.code);
  view.setUint32(8, frame.sequence, true);
  return bytes;
}
