import { extname } from 'node:path';
import type { ByteRange, LocalBackend } from '../backend.ts';
import { RemoteReader } from '../remote/remote-reader.ts';
import { S3Files } from './s3-files.ts';
import type { S3Place } from './s3-files.ts';

/** A store in an S3 bucket. */
export class S3Backend extends S3Files implements LocalBackend {
  readonly #reader: RemoteReader;

  /** Throws SqlsyncError USAGE for an address that names no place. */
  constructor(place: S3Place) {
    super(place);
    const program = new URL(`./read-thread${extname(import.meta.filename)}`, import.meta.url);
    this.#reader = new RemoteReader(place, program);
  }

  getNow(name: string, range?: ByteRange): Uint8Array {
    return this.#reader.getNow(name, range);
  }

  expect(name: string, range: ByteRange, fileBytes?: number): boolean {
    return this.#reader.expect(name, range, fileBytes);
  }

  plan(name: string, range: ByteRange): void {
    this.#reader.plan(name, range);
  }
}
