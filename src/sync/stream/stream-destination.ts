import type { Outcome } from '../../../protocol/messages.ts';
import { SqlsyncError } from '../../errors.ts';
import type { PageSink, SinkTarget } from '../../pages/page-source.ts';
import { lockBytePage } from '../../pages/page-types.ts';
import type { PageNumber } from '../../pages/page-types.ts';
import type { Destination } from '../agents/destination.ts';
import type { PageStream } from './page-stream.ts';

/** A stream as the destination of a copy: it takes all pages, in order, once. */
export class StreamDestination implements Destination {
  readonly path = '';
  readonly fileId = '';
  readonly isNew = true;
  readonly hasOldPages = false;
  readonly warnings: readonly string[] = [];
  readonly #stream: PageStream;

  constructor(stream: PageStream) {
    this.#stream = stream;
  }

  /** Throws SqlsyncError ROOT_MISMATCH for a second attempt: what was written cannot be taken back. */
  openSink(target: SinkTarget): Promise<PageSink> {
    if (this.#stream.bytes === 0) return Promise.resolve(new StreamSink(this.#stream, target));
    throw new SqlsyncError('ROOT_MISMATCH', 'What was written does not have the root hash of the origin', {
      hint: 'Throw it away and run sqlsync again. If it happens again, check the memory of both machines.',
    });
  }

  async settle(sink: PageSink): Promise<Outcome> {
    await sink.commit();
    return 'committed';
  }
}

class StreamSink implements PageSink {
  readonly old = undefined;
  readonly warnings: readonly string[] = [];
  readonly #stream: PageStream;
  readonly #target: SinkTarget;
  readonly #lockByte: number;
  #next = 1;

  constructor(stream: PageStream, target: SinkTarget) {
    this.#stream = stream;
    this.#target = target;
    this.#lockByte = lockBytePage(target.pageSize);
  }

  write(page: PageNumber, bytes: Uint8Array): void {
    this.#skipLockByte();
    if (page !== this.#next) {
      throw new SqlsyncError('PROTOCOL', `The other side sent page ${page} where ${this.#next} was next`);
    }
    this.#stream.add(bytes);
    this.#next++;
  }

  ready(): Promise<void> {
    return this.#stream.ready();
  }

  /** The tree has to keep all hashes, because no page can be read again. */
  takeHashes(): void {}

  readNew(page: PageNumber): Uint8Array {
    throw new Error(`page ${page} is written and gone`);
  }

  async commit(): Promise<void> {
    this.#skipLockByte();
    const { pageCount } = this.#target;
    if (this.#next !== pageCount + 1) throw new Error(`page ${this.#next} of ${pageCount} is missing`);
    await this.#stream.end();
  }

  abort(): Promise<void> {
    return Promise.resolve();
  }

  /** No page of that number travels; in the file it is zeros. */
  #skipLockByte(): void {
    const { pageSize, pageCount } = this.#target;
    if (this.#next !== this.#lockByte || this.#next > pageCount) return;
    this.#stream.add(new Uint8Array(pageSize));
    this.#next++;
  }
}
