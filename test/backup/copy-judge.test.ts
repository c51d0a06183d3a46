import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { CopyJudge } from '../../src/backup/objects/copy-judge.ts';
import type { ObjectParts } from '../../src/backup/objects/copy-judge.ts';
import { MemoryBackend } from './memory-backend.ts';
import { idOf } from '../../src/backup/packs/object-id.ts';
import { ObjectIndex } from '../../src/backup/objects/object-index.ts';
import { damaged, unavailable } from '../../src/backup/store-error.ts';

const DEPTH = 32;
const COPIES = 3;

describe('the copies of a long chain of deltas', () => {
  test('each copy of a long chain of deltas is judged once, even if its base cannot be read', () => {
    const { judge, calls } = chain((depth) => (depth === 0 ? 'unreadable' : 'right'));
    assert.throws(() => judge.rightCopy(idAt(DEPTH)), { code: 'STORE_DAMAGED' });
    assert.equal(calls(), COPIES * (DEPTH + 1));
    assert.throws(() => judge.rightCopy(idAt(DEPTH)), { code: 'STORE_DAMAGED' });
    assert.equal(calls(), COPIES * (DEPTH + 1));
  });

  test('the copies of a long chain are put together a bounded number of times, even if their base is wrong', () => {
    const { judge, calls } = chain((depth) => (depth === 0 ? 'wrong' : 'right'));
    assert.throws(() => judge.rightCopy(idAt(DEPTH)), { file: `packs/${packId(0).toString('hex')}` });
    assert.ok(calls() < COPIES * COPIES * DEPTH * DEPTH, `${calls()} objects were read`);
    assert.deepEqual(
      [...judge.found.keys()].sort(),
      [0, 1, 2].map((copy) => `packs/${packId(copy).toString('hex')}`),
    );
  });

  test('the copies of a long chain give the right object as long as one copy of each object is right', () => {
    const { judge } = chain((depth, copy) => (copy === depth % COPIES ? 'right' : 'wrong'));
    assert.deepEqual(judge.rightCopy(idAt(DEPTH)).bytes, bytesAt(DEPTH));
  });

  test('the copies are judged again if the system refused to read one', () => {
    let refuses = true;
    const { judge } = chain((depth) => (depth === 5 && refuses ? 'refused' : 'right'));
    assert.throws(() => judge.rightCopy(idAt(DEPTH)), { code: 'STORE_UNAVAILABLE' });
    refuses = false;
    assert.deepEqual(judge.rightCopy(idAt(DEPTH)).bytes, bytesAt(DEPTH));
  });
});

type State = 'right' | 'wrong' | 'unreadable' | 'refused';

/** Object `depth` is the delta on object `depth - 1`; each of some packs has all of them. */
function chain(stateOf: (depth: number, copy: number) => State): { judge: CopyJudge; calls: () => number } {
  const index = new ObjectIndex();
  const depths = Uint8Array.from({ length: DEPTH + 1 }, (_, i) => i);
  const ids = new Uint8Array(Buffer.concat(Array.from(depths, (depth) => idAt(depth))));
  const bases = new Uint8Array(
    Buffer.concat([...depths].slice(1).map((depth) => idAt(depth - 1).subarray(0, 16))),
  );
  const frame = { offset: 28, length: 72, rawBytes: 100, kind: 1, objectCount: DEPTH + 1 };
  for (let copy = 0; copy < COPIES; copy++)
    index.addPack(
      { id: packId(copy), bytes: 100, frames: [frame], ids, depths, bases },
      { present: true, trusted: true },
    );
  let calls = 0;
  const partsOf = (object: number): ObjectParts => {
    calls++;
    const depth = index.depthOf(object);
    const copy = Math.floor(object / (DEPTH + 1));
    const state = stateOf(depth, copy);
    if (state === 'unreadable') throw damaged(`packs/${packId(copy).toString('hex')}`, 'cannot be read');
    if (state === 'refused') throw unavailable('of a test', 'read', new Error('EIO'));
    // Each delta adds a byte to its base.
    const assemble = (base: Uint8Array): Uint8Array => {
      const bytes = new Uint8Array(Buffer.concat([base, Uint8Array.of(depth)]));
      if (state === 'wrong') bytes[depth] = 255;
      return bytes;
    };
    return { base: depth === 0 ? undefined : idAt(depth - 1).subarray(0, 16), assemble };
  };
  return { judge: new CopyJudge(index, new MemoryBackend(), partsOf), calls: () => calls };
}

function bytesAt(depth: number): Uint8Array {
  return Uint8Array.from({ length: depth + 1 }, (_, i) => i);
}

function idAt(depth: number): Uint8Array {
  return idOf(bytesAt(depth));
}

function packId(copy: number): Buffer {
  return Buffer.alloc(32, copy + 1);
}
