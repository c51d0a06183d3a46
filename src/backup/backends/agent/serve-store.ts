import { createHash } from 'node:crypto';
import { join, resolve } from 'node:path';
import { message } from '../../../../protocol/encode.ts';
import { MAX_FILE_PART_BYTES } from '../../../../protocol/limits.ts';
import type { Message, MessageOf } from '../../../../protocol/messages.ts';
import { SqlsyncError, systemErrorCode } from '../../../errors.ts';
import type { Connection } from '../../../sync/link/connection.ts';
import type { StoreRights } from '../../../sync/request/store-rights.ts';
import { isMissing } from '../../store-error.ts';
import { STORE_FOLDERS } from '../backend.ts';
import type { StoreFolder } from '../backend.ts';
import { DirectoryBackend } from '../directory-backend.ts';
import { IncomingFile } from './incoming-file.ts';

type Request = Extract<
  Message,
  { type: 'getFile' | 'putFile' | 'deleteFile' | 'removeLeftovers' | 'digestFile' | 'listFiles' }
>;

/** Entries of one `filesListed`: with the longest names they fit in one message. */
const MAX_LISTED = 2000;

/** A config is JSON of a few hundred bytes. */
const MAX_CONFIG_BYTES = 1024 * 1024;

/** A name in a folder of a store; a dot begins the name of an unfinished file. */
const FILE_NAME = /^[^./\0][^/\0]{0,254}$/;

/** The name of a file that is put. */
const NEW_NAME = /^[0-9a-f-]{1,200}$/;

/** Where a peer that may only add puts files, each named by its hash. Notes and marks let a prune delete others. */
const ADDED_FOLDERS: ReadonlySet<string> = new Set<StoreFolder>(['packs', 'indexes', 'snapshots', 'steps']);

/**
 * Serves the files of the store that the peer named, one request after another, until it sends `close`. Throws
 * SqlsyncError RESTRICTED, PROTOCOL, CONNECTION_LOST.
 */
export async function serveStore(
  connection: Connection,
  { path }: MessageOf<'openStore'>,
  rights: StoreRights | undefined,
): Promise<void> {
  const folder = rights?.folder(path) ?? resolve(path);
  await new ServedStore(connection, folder, rights).serve();
}

class ServedStore {
  readonly #connection: Connection;
  readonly #folder: string;
  readonly #rights: StoreRights | undefined;
  readonly #files: DirectoryBackend;

  constructor(connection: Connection, folder: string, rights: StoreRights | undefined) {
    this.#connection = connection;
    this.#folder = folder;
    this.#rights = rights;
    this.#files = new DirectoryBackend(folder);
  }

  async serve(): Promise<void> {
    const connection = this.#connection;
    const isThere = await this.#learnIdentity();
    connection.state = 'servingStore';
    connection.send(message('storeOpened', { isThere, nowMs: Date.now() }));
    for (;;) {
      const request = await connection.receive();
      if (request.type === 'close') return;
      await this.#serve(request as Request);
      await connection.drained();
    }
  }

  /** From now on nothing is put where another store comes to lie. Returns true if there is a config. */
  async #learnIdentity(): Promise<boolean> {
    try {
      await this.#files.get('config', { offset: 0, length: MAX_CONFIG_BYTES });
      return true;
    } catch (error) {
      // Who reads a config that cannot be read gets the reason.
      return !isMissing(error);
    }
  }

  async #serve(request: Request): Promise<void> {
    try {
      await this.#answer(request);
    } catch (error) {
      this.#connection.send(failed(request.id, error));
    }
  }

  /** Throws SqlsyncError: STORE_* and RESTRICTED if only this request failed. */
  async #answer(request: Request): Promise<void> {
    const { id } = request;
    switch (request.type) {
      case 'getFile':
        return this.#get(request);
      case 'putFile':
        return this.#put(request);
      case 'digestFile':
        return this.#digest(request);
      case 'listFiles':
        return this.#list(request);
      case 'deleteFile':
        this.#refuseChange();
        await this.#files.delete(this.#named(request.name));
        break;
      case 'removeLeftovers':
        this.#refuseChange();
        await this.#files.removeLeftovers(request.olderThanMs);
    }
    this.#connection.send(message('fileDone', { id, created: false }));
  }

  async #get({ id, name, offset, length }: MessageOf<'getFile'>): Promise<void> {
    const file = this.#named(name);
    for (let at = 0; ;) {
      const wanted = Math.min(MAX_FILE_PART_BYTES, length - at);
      const data = await this.#files.get(file, { offset: offset + at, length: wanted });
      at += data.length;
      const isLast = data.length < wanted || at >= length;
      this.#connection.send(message('filePart', { id, isLast, data }));
      if (isLast) return;
      await this.#connection.drained();
    }
  }

  async #digest({ id, name }: MessageOf<'digestFile'>): Promise<void> {
    const file = this.#named(name);
    const hash = createHash('sha256');
    let bytes = 0;
    for (let read = MAX_FILE_PART_BYTES; read === MAX_FILE_PART_BYTES; bytes += read) {
      const part = await this.#files.get(file, { offset: bytes, length: MAX_FILE_PART_BYTES });
      hash.update(part);
      read = part.length;
    }
    this.#connection.send(message('fileDigest', { id, hash: hash.digest(), bytes }));
  }

  async #list({ id, folder }: MessageOf<'listFiles'>): Promise<void> {
    const nowMs = Date.now();
    const known = STORE_FOLDERS.find((each) => each === folder);
    if (known === undefined) throw refused('a store has no such folder');
    this.#rights?.file(join(this.#folder, known));
    const files = await this.#files.list(known);
    for (let at = 0; at === 0 || at < files.length; at += MAX_LISTED) {
      const some = files.slice(at, at + MAX_LISTED);
      this.#connection.send(
        message('filesListed', {
          id,
          names: some.map(({ name }) => name),
          sizes: some.map(({ bytes }) => bytes),
          timesMs: some.map(({ modified }) => Math.max(0, Math.floor(modified.getTime()))),
          nowMs,
          isLast: at + MAX_LISTED >= files.length,
        }),
      );
      await this.#connection.drained();
    }
  }

  async #put({ id, name, replace }: MessageOf<'putFile'>): Promise<void> {
    const incoming = new IncomingFile(this.#connection, id);
    let created: boolean;
    try {
      const file = this.#named(name);
      this.#refusePut(name, replace);
      if (name === 'config') created = await this.#putConfig(incoming, replace);
      else {
        const hashed = this.#rights?.may === 'add' ? name : undefined;
        created = (await this.#files.put(file, incoming.pieces(hashed))) === 'created';
      }
    } finally {
      await incoming.drop();
      this.#connection.state = 'servingStore';
    }
    this.#connection.send(message('fileDone', { id, created }));
  }

  async #putConfig(incoming: IncomingFile, replace: boolean): Promise<boolean> {
    const pieces: Uint8Array[] = [];
    let bytes = 0;
    for await (const piece of incoming.pieces()) {
      bytes += piece.length;
      if (bytes > MAX_CONFIG_BYTES) throw refused('a config has at most 1 MiB');
      pieces.push(piece.slice());
    }
    if (!replace) return (await this.#files.put('config', pieces)) === 'created';
    await this.#files.replaceConfig(pieces);
    return false;
  }

  /** The name, if it is one that a store can have, and leads to no place outside of what the agent may serve. */
  #named(name: string): string {
    const [folder = '', file = '', ...more] = name.split('/');
    const isFile =
      name === 'config' ||
      (more.length === 0 && STORE_FOLDERS.some((each) => each === folder) && FILE_NAME.test(file));
    if (!isFile) throw refused('a store has no file of such a name');
    this.#rights?.file(join(this.#folder, name));
    return name;
  }

  #refusePut(name: string, replace: boolean): void {
    const [folder = '', file = ''] = name.split('/');
    if (this.#rights?.may === 'read') throw refused('it may be read, but not written (--read-only)');
    if (replace) this.#refuseChange();
    if (name === 'config') return;
    if (replace || !NEW_NAME.test(file)) throw refused('no file of such a name is put into a store');
    if (this.#rights?.may === 'add' && !ADDED_FOLDERS.has(folder))
      throw refused(`it may be added to, and a file in ${folder} takes others away (--append-only)`);
  }

  #refuseChange(): void {
    if (this.#rights?.may === 'read') throw refused('it may be read, but not written (--read-only)');
    if (this.#rights?.may === 'add')
      throw refused('it may be added to, but nothing in it may be deleted or replaced (--append-only)');
  }
}

function refused(why: string): SqlsyncError {
  return new SqlsyncError('RESTRICTED', `The agent there refuses it: ${why}`, {
    hint: 'Ask the administrator of that host to allow more.',
    cause: Object.assign(new Error(why), { code: 'EACCES' }),
  });
}

/** The answer to a request that failed; an error of the conversation is thrown again. */
function failed(id: number, error: unknown): MessageOf<'fileFailed'> {
  const isOfRequest =
    error instanceof SqlsyncError &&
    ['STORE_FILE_MISSING', 'STORE_UNAVAILABLE', 'RESTRICTED'].includes(error.code);
  if (!isOfRequest) throw error;
  const { code, cause, hint = '' } = error;
  // The near side says which file it is about.
  const { message: text } = code !== 'RESTRICTED' && cause instanceof Error ? cause : error;
  return message('fileFailed', {
    id,
    isMissing: isMissing(error),
    message: text.slice(0, 4000),
    systemCode: code === 'RESTRICTED' ? 'EACCES' : (systemErrorCode(cause) ?? ''),
    hint: code === 'RESTRICTED' ? hint.slice(0, 4000) : '',
  });
}
