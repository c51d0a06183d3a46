import { spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, rmdirSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { systemErrorCode } from '../../src/errors.ts';

const DISK_BYTES = 48 * 1024 * 1024;
const CHUNK_BYTES = 4096;

/** A file system in memory that can be filled. */
export class SmallDisk {
  readonly path: string;
  readonly #filler: string;

  /** Undefined, with a message, if this user may not mount. */
  static mount(path: string): SmallDisk | undefined {
    mkdirSync(path);
    const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${DISK_BYTES}`, 'tmpfs', path]);
    if (mounted.status === 0) return new SmallDisk(path);
    console.error(`NOT TESTED: no full disk, since mount failed: ${mounted.stderr?.toString().trim()}`);
    return undefined;
  }

  private constructor(path: string) {
    this.path = path;
    this.#filler = join(path, 'filler');
  }

  /** Leaves about this many bytes free. */
  fill(leftBytes: number): void {
    const chunk = Buffer.alloc(CHUNK_BYTES);
    const file = openSync(this.#filler, 'w');
    const spare = openSync(`${this.#filler}-spare`, 'w');
    try {
      for (let left = leftBytes; left > 0; left -= CHUNK_BYTES) writeSync(spare, chunk);
      for (;;) writeSync(file, chunk);
    } catch (error) {
      if (systemErrorCode(error) !== 'ENOSPC') throw error;
    } finally {
      closeSync(file);
      closeSync(spare);
      rmSync(`${this.#filler}-spare`);
    }
  }

  empty(): void {
    rmSync(this.#filler, { force: true });
  }

  unmount(): void {
    spawnSync('umount', ['-l', this.path]);
    rmdirSync(this.path);
  }
}
