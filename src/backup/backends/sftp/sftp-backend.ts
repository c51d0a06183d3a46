import { extname } from 'node:path';
import { RemoteReader } from '../remote/remote-reader.ts';
import type { ByteRange, LocalBackend } from '../backend.ts';
import { sftpPlace } from './sftp-connect.ts';
import { SftpFiles } from './sftp-files.ts';

/** A store behind an SFTP server. */
export class SftpBackend extends SftpFiles implements LocalBackend {
  readonly #reader: RemoteReader;

  /** Throws SqlsyncError USAGE for an address that names no place. */
  constructor(address: string) {
    super(sftpPlace(address));
    const program = new URL(`./sftp-read-thread${extname(import.meta.filename)}`, import.meta.url);
    this.#reader = new RemoteReader({ address }, program);
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
