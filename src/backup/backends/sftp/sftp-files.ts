import { randomBytes } from 'node:crypto';
import { SqlsyncError } from '../../../errors.ts';
import type { Transport } from '../../../transport/transport.ts';
import { missingFile, unavailable } from '../../store-error.ts';
import { STORE_FOLDERS, TEMPORARY_PREFIX } from '../backend.ts';
import type { Backend, ByteRange, StoredFile, StoreFolder } from '../backend.ts';
import { KeptConnection } from '../remote/kept-connection.ts';
import { StoreIdentity, storeIsGone } from '../store-identity.ts';
import { OPEN_FLAGS, STATUS } from './packets.ts';
import { SftpChannels } from './sftp-channels.ts';
import { readTwice } from './second-read.ts';
import { EXTENSIONS, SftpRefused } from './sftp-client.ts';
import type { SftpClient } from './sftp-client.ts';
import type { FileAttributes } from './packets.ts';

/** How to reach a store behind an SFTP server. */
export interface SftpPlace {
  /** For messages. */
  readonly address: string;
  /** Absolute, or relative to the folder in which the server begins. */
  readonly path: string;
  /** Logs in and starts the server. */
  readonly connect: () => Promise<Transport>;
}

/** An unfinished file of this size would fill the disk: what a full disk looks like, without an answer that says so. */
const FULL_BYTES: number = 32 * 1024 * 1024;

const SYSTEM_CODES: ReadonlyMap<number, string> = new Map([
  [STATUS.permissionDenied, 'EACCES'],
  [STATUS.noSpace, 'ENOSPC'],
  [STATUS.quotaExceeded, 'EDQUOT'],
]);

const S_IFMT = 0o170000;
const S_IFREG = 0o100000;
const S_IFDIR = 0o040000;

const CREATE = OPEN_FLAGS.write | OPEN_FLAGS.create | OPEN_FLAGS.exclusive;

/**
 * The files of a store on another host, by SFTP. A file is written beside its place, made durable where the server has
 * OpenSSH's fsync, and gets its name by a hard link or a rename. Only its owner may read it.
 */
export class SftpFiles implements Backend {
  readonly description: string;
  readonly parallel = 8;
  readonly shortcomings: string[] = [];
  readonly #place: SftpPlace;
  readonly #connection: KeptConnection<SftpClient, SftpChannels>;
  readonly #identity = new StoreIdentity();
  #wasThere: boolean;
  /** How far the server's clock is ahead of ours, by the time of a file that it just wrote. */
  #aheadMs: number | undefined;

  /** @param wasThere - true if the caller has seen the store: then it is lost if it is not there. */
  constructor(place: SftpPlace, wasThere = false) {
    this.#place = place;
    this.#connection = new KeptConnection(async (last) =>
      SftpChannels.open(await place.connect(), last?.most),
    );
    this.#wasThere = wasThere;
    this.description = place.address;
  }

  /** Ends the connection; a later operation opens another. */
  close(): void {
    this.#connection.close();
  }

  now(): number | undefined {
    return this.#aheadMs === undefined ? undefined : Date.now() + this.#aheadMs;
  }

  async settleClock(): Promise<void> {
    await this.#do('write', 'marks', async (client) => {
      const path = this.#pathOf(`marks/${temporaryName()}`);
      const handle = await this.#create(client, path);
      try {
        await this.#learnTime(client, handle);
      } finally {
        await client.closeHandle(handle);
        await client.remove(path);
      }
    });
  }

  async put(name: string, pieces: readonly Uint8Array[]): Promise<'created' | 'exists'> {
    const length = pieces.reduce((sum, piece) => sum + piece.length, 0);
    const put = async (client: SftpClient, attempt: number): Promise<'created' | 'exists'> => {
      const outcome = await this.#write(client, name, pieces, (from, to) =>
        this.#publish(client, from, to, name),
      );
      if (name !== 'config') return outcome;
      // The answer to an earlier attempt, which put it, may have been lost.
      const isOurs =
        outcome === 'created' ||
        (attempt > 1 && Buffer.concat(pieces).equals(await this.#read(client, name, undefined)));
      if (isOurs) this.#identity.learn(Buffer.concat(pieces));
      return isOurs ? 'created' : 'exists';
    };
    return this.#do('write', name, put, length);
  }

  async replaceConfig(pieces: readonly Uint8Array[]): Promise<void> {
    await this.#do('write', 'config', (client) =>
      this.#write(client, 'config', pieces, (from, to) => this.#replace(client, from, to)),
    );
    this.#identity.replace(Buffer.concat(pieces));
  }

  async get(name: string, range?: ByteRange): Promise<Uint8Array> {
    const bytes = await this.#do('read', name, (client) => readTwice(() => this.#read(client, name, range)));
    const isWhole = range === undefined || (range.offset === 0 && bytes.length < range.length);
    if (name === 'config' && isWhole) this.#identity.learn(bytes);
    return bytes;
  }

  list(folder: StoreFolder): Promise<StoredFile[]> {
    return this.#do('list', folder, async (client) => {
      try {
        const files = await readTwice(() => this.#listed(client, folder));
        return files
          .filter(({ mode }) => (mode & S_IFMT) === S_IFREG || (mode & S_IFMT) === 0)
          .map(({ name, bytes, modified }) => ({ name, bytes, modified }));
      } catch (error) {
        if (!isMissing(error)) throw error;
        await this.#refuseGone(client);
        return [];
      }
    });
  }

  async delete(name: string): Promise<void> {
    await this.#do('delete', name, async (client) => {
      try {
        await client.remove(this.#pathOf(name));
      } catch (error) {
        if (!isMissing(error)) throw error;
      }
    });
  }

  async removeLeftovers(olderThanMs: number): Promise<void> {
    await this.settleClock();
    for (const folder of STORE_FOLDERS) {
      await this.#do('list', folder, async (client) => {
        const files = await client.list(this.#pathOf(folder)).catch((error: unknown) => {
          if (isMissing(error)) return [];
          throw error;
        });
        const old = (this.now() ?? Date.now()) - olderThanMs;
        for (const { name, modified } of files) {
          if (!name.startsWith(TEMPORARY_PREFIX) || modified === undefined || modified.getTime() > old)
            continue;
          await client.remove(`${this.#pathOf(folder)}/${name}`).catch(() => {});
        }
      });
    }
  }

  /** The entries of a folder that a store may have, with what a server may leave out of a list. */
  async #listed(client: SftpClient, folder: string): Promise<(StoredFile & { readonly mode: number })[]> {
    const complete: (StoredFile & { readonly mode: number })[] = [];
    for (const entry of await client.list(this.#pathOf(folder))) {
      const { name } = entry;
      if (name.startsWith('.') || name.includes('/')) continue;
      const isWhole = entry.bytes !== undefined && entry.modified !== undefined && entry.mode !== undefined;
      const told = isWhole ? entry : await statOrNothing(client, `${this.#pathOf(folder)}/${name}`);
      if (told === undefined) continue;
      const { bytes = entry.bytes, mode = entry.mode ?? 0 } = told;
      const modified = told.modified ?? entry.modified ?? new Date(Number.NaN);
      // A file that is left out would look as if it were lost.
      if (bytes === undefined) throw new Error(`the server tells no size of ${name}`);
      complete.push({ name, bytes, modified, mode });
    }
    return complete;
  }

  #pathOf(name: string): string {
    return `${this.#place.path === '/' ? '' : this.#place.path}/${name}`;
  }

  async #read(client: SftpClient, name: string, range: ByteRange | undefined): Promise<Uint8Array> {
    const handle = await client.openToRead(this.#pathOf(name));
    try {
      const length = range?.length ?? (await client.fstat(handle)).bytes;
      if (length === undefined) throw new Error('the server tells no size of the file');
      return await client.read(handle, range?.offset ?? 0, length);
    } finally {
      await client.closeHandle(handle).catch(() => {});
    }
  }

  async #write<T>(
    client: SftpClient,
    name: string,
    pieces: readonly Uint8Array[],
    give: (from: string, to: string) => Promise<T>,
  ): Promise<T> {
    const path = this.#pathOf(name);
    const temporary = `${path.slice(0, path.lastIndexOf('/') + 1)}${temporaryName()}`;
    // Meanwhile the bytes are on their way.
    const comparing = this.#refuseAnother(client);
    comparing.catch(() => {});
    const handle = await this.#create(client, temporary);
    let isOpen = true;
    try {
      await client.write(handle, pieces);
      await this.#makeDurable(client, handle);
      await this.#learnTime(client, handle);
      await comparing;
      const outcome = await give(temporary, path);
      // Again: now with its name, which most file systems make durable together with the file.
      await this.#makeDurable(client, handle);
      isOpen = false;
      await client.closeHandle(handle);
      return outcome;
    } finally {
      if (isOpen) await client.closeHandle(handle).catch(() => {});
      await client.remove(temporary).catch(() => {});
    }
  }

  /** Creates a file, and the folders that lead to it. */
  async #create(client: SftpClient, path: string): Promise<Buffer> {
    try {
      return await client.openFile(path, CREATE);
    } catch (error) {
      if (!isMissing(error)) throw error;
    }
    // A file system that was unmounted must not be covered by a new folder.
    await this.#refuseGone(client);
    const parts = path.split('/').slice(0, -1);
    for (let count = 1; count <= parts.length; count++) {
      const folder = parts.slice(0, count).join('/');
      if (folder !== '') await this.#makeFolder(client, folder);
    }
    return client.openFile(path, CREATE);
  }

  async #makeFolder(client: SftpClient, path: string): Promise<void> {
    try {
      await client.makeFolder(path);
    } catch (error) {
      if (!(error instanceof SftpRefused)) throw error;
      // OpenSSH refuses to make a folder that exists, with the status of any other failure.
      const there = await client.stat(path).catch(() => undefined);
      if (there === undefined || ((there.mode ?? S_IFDIR) & S_IFMT) !== S_IFDIR) throw error;
    }
  }

  async #makeDurable(client: SftpClient, handle: Uint8Array): Promise<void> {
    if (client.has(EXTENSIONS.fsync)) await client.fsync(handle);
  }

  /** A hard link fails for a name that is taken; so does the protocol's rename, though not on every server. */
  async #publish(client: SftpClient, from: string, to: string, name: string): Promise<'created' | 'exists'> {
    // Files of one name have the same bytes, so a rename that comes second replaces equal bytes.
    if (name !== 'config' && client.has(EXTENSIONS.rename)) {
      await client.extended(EXTENSIONS.rename, from, to);
      return 'created';
    }
    if (await this.#isThere(client, to)) return 'exists';
    try {
      if (client.has(EXTENSIONS.hardlink)) await client.extended(EXTENSIONS.hardlink, from, to);
      else await client.rename(from, to);
      return 'created';
    } catch (error) {
      if (error instanceof SftpRefused && (await this.#isThere(client, to))) return 'exists';
      if (!(error instanceof SftpRefused) || !client.has(EXTENSIONS.hardlink)) throw error;
    }
    // A file system without hard links.
    await client.rename(from, to);
    return 'created';
  }

  async #replace(client: SftpClient, from: string, to: string): Promise<void> {
    if (client.has(EXTENSIONS.rename)) return client.extended(EXTENSIONS.rename, from, to);
    try {
      await client.rename(from, to);
    } catch (error) {
      if (!(error instanceof SftpRefused) || !(await this.#isThere(client, to))) throw error;
      // A server that renames over no file: for a moment there is none.
      await client.remove(to);
      await client.rename(from, to);
    }
  }

  async #isThere(client: SftpClient, path: string): Promise<boolean> {
    try {
      await client.stat(path);
      return true;
    } catch (error) {
      if (isMissing(error)) return false;
      throw error;
    }
  }

  /** Throws if the folder of the store itself is gone: its file system may have been unmounted. */
  async #refuseGone(client: SftpClient): Promise<void> {
    if (this.#wasThere && !(await this.#isThere(client, this.#pathOf('config')))) throw storeIsGone();
    await this.#refuseAnother(client);
  }

  /** Throws if another store lies there, or none any more. The config is only read if its file looks changed. */
  async #refuseAnother(client: SftpClient): Promise<void> {
    if (!this.#identity.isKnown) return;
    const file = await statOrNothing(client, this.#pathOf('config'));
    const stamp = file && `${file.bytes} ${file.modified?.getTime()}`;
    if (this.#identity.isStamped(stamp)) return;
    this.#identity.compare(file && (await this.#read(client, 'config', undefined)), stamp);
  }

  async #learnTime(client: SftpClient, handle: Uint8Array): Promise<void> {
    const { modified } = await client.fstat(handle);
    if (modified !== undefined) this.#aheadMs = modified.getTime() - Date.now();
  }

  /** Runs an operation that sends or receives about so many bytes. Throws SqlsyncError STORE_*. */
  async #do<T>(
    verb: string,
    name: string,
    work: (client: SftpClient, attempt: number) => Promise<T>,
    bytes = 0,
  ): Promise<T> {
    let last: SftpClient | undefined;
    try {
      const result = await this.#connection.run(bytes, (client, attempt) => work((last = client), attempt));
      if (name === 'config') this.#wasThere = true;
      return result;
    } catch (error) {
      throw await this.#failure(`${verb} ${name}`, error, name, last);
    }
  }

  async #failure(
    what: string,
    error: unknown,
    name: string,
    client: SftpClient | undefined,
  ): Promise<unknown> {
    const { address } = this.#place;
    if (error instanceof SqlsyncError) {
      return new SqlsyncError('STORE_UNAVAILABLE', `Store ${address}: ${error.message}`, {
        cause: error,
        ...(error.hint === undefined ? {} : { hint: error.hint }),
      });
    }
    if (!(error instanceof SftpRefused)) return unavailable(address, what, error);
    if (error.status === STATUS.noSuchFile && what.startsWith('read ')) {
      if (client !== undefined && name !== 'config') {
        const isGone = await this.#refuseGone(client).catch((gone: unknown) => gone);
        if (isGone instanceof Error) return unavailable(address, what, isGone);
      }
      return missingFile(address, name, error);
    }
    const isFull = error.status === STATUS.failure && (await this.#isFull(client));
    const code = isFull ? 'ENOSPC' : (SYSTEM_CODES.get(error.status) ?? 'EIO');
    return unavailable(address, what, Object.assign(error, { code }));
  }

  /** OpenSSH gives no reason for a write that failed. */
  async #isFull(client: SftpClient | undefined): Promise<boolean> {
    if (client === undefined || client.isLost) return false;
    const free = await client.freeBytes(this.#place.path).catch(() => undefined);
    return free !== undefined && free < FULL_BYTES;
  }
}

/** undefined for a file that was deleted since it was listed. */
async function statOrNothing(client: SftpClient, path: string): Promise<FileAttributes | undefined> {
  try {
    return await client.stat(path);
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

function temporaryName(): string {
  return `${TEMPORARY_PREFIX}${randomBytes(12).toString('hex')}`;
}

function isMissing(error: unknown): boolean {
  return error instanceof SftpRefused && error.status === STATUS.noSuchFile;
}
