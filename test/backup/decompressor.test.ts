import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Random } from '../../fixtures/random.ts';
import { decompressor } from '../../src/backup/objects/decompressor.ts';
import type { FrameParts } from '../../src/backup/objects/decompressor-messages.ts';
import { decodeBody, encodePageFrame } from '../../src/backup/packs/frame.ts';
import type { PageObject } from '../../src/backup/packs/page-frame.ts';
import { idOf, toHex } from '../../src/backup/packs/object-id.ts';
import { tempDir } from '../support/compare.ts';

const PAGE_BYTES = 4096;
const PAGES = 80;

/** Pages that compress, and a frame of them. */
async function made(seed: number): Promise<{ pages: Uint8Array; plain: Uint8Array }> {
  const random = new Random(seed);
  const pages = Uint8Array.from({ length: PAGES * PAGE_BYTES }, () => random.integer(0, 7));
  const objects = Array.from({ length: PAGES }, (_, i) => ({
    page: { bitmap: undefined, data: pages.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES) },
    base: undefined,
  }));
  return { pages, plain: await encodePageFrame(objects, PAGE_BYTES) };
}

function assertPages(parts: FrameParts | undefined, pages: Uint8Array): void {
  assert.ok(parts !== undefined);
  const { frame } = decodeBody(parts.header, parts.body, 'packs/x');
  assert.ok(frame.kind === 'pages' && frame.objectCount === PAGES);
  for (let i = 0; i < PAGES; i++)
    assert.ok(
      Buffer.from(frame.object(i).page.data).equals(pages.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES)),
    );
}

describe('the decompressor', () => {
  test('the decompressor gives the ids of whole pages where they are wanted, and none for deltas', async () => {
    const { pages } = await made(9);
    const page = (i: number): Uint8Array => pages.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES);
    const whole = (i: number): PageObject => ({
      page: { bitmap: undefined, data: page(i) },
      base: undefined,
    });
    const bitmap = Uint8Array.of(1, 0, 0, 0);
    const delta = { page: { bitmap, data: page(1).subarray(0, 128), group: 1 }, base: new Uint8Array(16) };
    const objects = Array.from({ length: PAGES }, (_, i) => (i === 1 ? delta : whole(i)));
    const plain = await encodePageFrame(objects, PAGE_BYTES);
    const unhashed = decompressor.take(decompressor.start({ plain: Uint8Array.from(plain) }));
    assert.ok(unhashed !== undefined && unhashed.ids === undefined);
    const parts = decompressor.take(decompressor.start({ plain }, true));
    assert.ok(parts !== undefined);
    const { frame } = decodeBody(parts.header, parts.body, 'packs/x', parts.ids);
    assert.ok(frame.kind === 'pages');
    for (let i = 0; i < PAGES; i++) {
      const id: Uint8Array | undefined = frame.wholeId(i);
      if (i === 1) assert.equal(id, undefined);
      else assert.equal(toHex(id as Uint8Array), toHex(idOf(page(i))));
    }
  });

  test('the decompressor gives each frame for its number, in any order of calls', async () => {
    const all = await Promise.all([1, 2, 3, 4].map((seed) => made(seed)));
    const ids = all.map(({ plain }) => decompressor.start({ plain }));
    for (const i of [2, 0, 3, 1])
      assertPages(decompressor.take(ids[i]), (all[i] as { pages: Uint8Array }).pages);
  });

  test('the decompressor reads a part of a file, and gives a frame once', async (t) => {
    const { pages, plain } = await made(5);
    const path = join(tempDir(t), 'pack');
    writeFileSync(path, Buffer.concat([Buffer.alloc(77, 1), plain, Buffer.alloc(99, 2)]));
    const id = decompressor.start({ path, offset: 77, length: plain.length });
    assertPages(decompressor.take(id), pages);
    assert.equal(decompressor.take(id), undefined);
  });

  test('the decompressor gives nothing for a file that is missing, cut or no frame, and goes on', async (t) => {
    const { pages, plain } = await made(6);
    const path = join(tempDir(t), 'pack');
    writeFileSync(path, plain);
    const damaged = Uint8Array.from(plain);
    damaged.fill(7, plain.length >> 1);
    const ids = [
      decompressor.start({ plain: new Uint8Array(1000).fill(7) }),
      decompressor.start({ plain: damaged }),
      decompressor.start({ path, offset: 1, length: plain.length }),
      decompressor.start({ path: `${path}-gone`, offset: 0, length: 10 }),
    ];
    const good = decompressor.start({ path, offset: 0, length: plain.length });
    for (const id of ids) assert.equal(decompressor.take(id), undefined);
    assertPages(decompressor.take(good), pages);
  });

  test('the decompressor forgets unasked results when its thread has ended, and starts another thread', async () => {
    const id = decompressor.start({ plain: (await made(7)).plain });
    // The thread ends by a timer of its own; the test waits for that, and not by another clock.
    while (!decompressor.isIdle) await delay(50);
    assert.equal(decompressor.take(id), undefined);
    const { pages, plain } = await made(8);
    assertPages(decompressor.take(decompressor.start({ plain })), pages);
  });
});
