import { extname } from 'node:path';
import { RemoteReader } from '../remote/remote-reader.ts';
import type { ByteRange, LocalBackend } from '../backend.ts';
import { agentPlace } from './agent-connect.ts';
import { AgentFiles } from './agent-files.ts';

/** A store on another host that has sqlsync. */
export class AgentBackend extends AgentFiles implements LocalBackend {
  readonly #reader: RemoteReader;

  /** Throws SqlsyncError USAGE for an address that names no place. */
  constructor(address: string) {
    super(agentPlace(address));
    const program = new URL(`./agent-read-thread${extname(import.meta.filename)}`, import.meta.url);
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
