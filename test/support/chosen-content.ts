/**
 * Content that somebody chooses who may write a blob and knows how pages are hashed, but not the key: a change of two words
 * that XXH64 does not notice under about half of all seeds.
 *
 * A lane of XXH64 takes a word m by lane = rotl(lane + m·P2, 31)·P1. To flip the top bit of m flips that of the sum, since P2
 * is odd; it becomes bit 30, and ±2^30·P1 in the lane. A word 32 bytes on comes into the same lane next: less (or more) by
 * 2^30·P1·P2⁻¹, it takes that away again. The sign is the value of one bit, a coin to be thrown for each seed.
 */
import { readFileSync } from 'node:fs';
import type Database from 'better-sqlite3';
import { Random } from '../../fixtures/random.ts';
import { XXH64_PRIMES } from '../protocol/xxhash.ts';
import { change } from './sync.ts';

const [P1, P2] = XXH64_PRIMES;
const PAGE_BYTES = 4096;

/** Changes the words at `at`, a multiple of 8 within the page, and 32 bytes on. */
export function changeUnseenByXxh64(bytes: Uint8Array, at: number, sign: 1n | -1n): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const step = (1n << 30n) * P1 * inverse(P2);
  view.setBigUint64(at, view.getBigUint64(at, true) ^ (1n << 63n), true);
  view.setBigUint64(at + 32, BigInt.asUintN(64, view.getBigUint64(at + 32, true) + sign * step), true);
}

/** A database with one blob, as large as a few pages, of an application that stores what its users send. */
export class ChosenBlob {
  readonly path: string;
  readonly #blob: Uint8Array;
  #changes = 0;

  constructor(path: string) {
    this.path = path;
    this.#blob = new Uint8Array(new Random(7).bytes(16_000));
    change(path, (db) => {
      db.pragma(`page_size = ${PAGE_BYTES}`);
      db.exec('CREATE TABLE upload (id INTEGER PRIMARY KEY, bytes BLOB)');
      db.prepare('INSERT INTO upload VALUES (1, ?)').run(this.#blob);
    });
  }

  /**
   * The user sends the blob again, with two words changed within one page. With one seed the sign that
   * cancels alternates, so one of two changes by the same sign cancels.
   */
  change(): void {
    const file = readFileSync(this.path);
    const inFile = file.indexOf(this.#blob.subarray(8192, 8256));
    let at = 8192 + ((PAGE_BYTES - inFile) % 8);
    while ((inFile + at - 8192) % PAGE_BYTES > PAGE_BYTES - 80) at += 64;
    changeUnseenByXxh64(this.#blob, at, this.#changes++ % 4 < 2 ? 1n : -1n);
    change(this.path, (db: Database.Database) =>
      db.prepare('UPDATE upload SET bytes = ? WHERE id = 1').run(this.#blob),
    );
  }

  /** Whether a copy of the database has the present content of the blob. */
  isIn(copy: string): boolean {
    const bytes = change(copy, (db) => db.prepare('SELECT bytes FROM upload').pluck().get());
    return Buffer.compare(bytes as Buffer, this.#blob) === 0;
  }
}

/** The inverse of an odd number, modulo 2^64, by Newton's iteration. */
function inverse(odd: bigint): bigint {
  let found = odd;
  for (let i = 0; i < 6; i++) found = BigInt.asUintN(64, found * (2n - odd * found));
  return found;
}
