import { SqlsyncError } from '../../../errors.ts';
import type { Connection } from '../../../sync/link/connection.ts';
import { missingFile, unavailable } from '../../store-error.ts';
import type { Backend, ByteRange, StoredFile, StoreFolder } from '../backend.ts';
import { KeptConnection } from '../remote/kept-connection.ts';
import { StoreIdentity, storeIsGone } from '../store-identity.ts';
import { StoreClient, StoreRefused } from './store-client.ts';

/** How to reach a store on another host that has sqlsync. */
export interface AgentPlace {
  /** For messages. */
  readonly address: string;
  /** Absolute, or relative to the folder in which the agent begins. */
  readonly path: string;
  /** Logs in and starts the agent. */
  readonly connect: () => Promise<Connection>;
}

/** The files of a store on another host, through a sqlsync there, which keeps them as a store in a folder. */
export class AgentFiles implements Backend {
  readonly description: string;
  readonly parallel = 8;
  readonly #place: AgentPlace;
  readonly #connection: KeptConnection<StoreClient, StoreClient>;
  readonly #identity = new StoreIdentity();
  /** The connection on which the store was recognized, or is about to be. */
  #recognized: { readonly client: StoreClient; readonly done: Promise<void> } | undefined;
  #wasThere: boolean;
  /** How far the clock there is ahead of ours. */
  #aheadMs: number | undefined;

  /** @param wasThere - true if the caller has seen the store: then it is lost if it is not there. */
  constructor(place: AgentPlace, wasThere = false) {
    this.#place = place;
    this.#wasThere = wasThere;
    this.description = place.address;
    this.#connection = new KeptConnection(async () => {
      const client = await StoreClient.open(await place.connect(), place.path);
      this.#learnTime(client.nowMs);
      return client;
    });
  }

  /** Ends the connection; a later operation opens another. */
  close(): void {
    this.#connection.close();
  }

  now(): number | undefined {
    return this.#aheadMs === undefined ? undefined : Date.now() + this.#aheadMs;
  }

  async settleClock(): Promise<void> {
    await this.list('marks');
  }

  async put(name: string, pieces: readonly Uint8Array[]): Promise<'created' | 'exists'> {
    const created = await this.#do('write', name, async (client, attempt) => {
      const isNew = await client.put(name, pieces);
      if (isNew || name !== 'config' || attempt === 1) return isNew;
      // The answer to an earlier attempt, which put it, may have been lost.
      return Buffer.concat(pieces).equals(await client.get(name));
    });
    if (created && name === 'config') this.#identity.learn(Buffer.concat(pieces));
    return created ? 'created' : 'exists';
  }

  async replaceConfig(pieces: readonly Uint8Array[]): Promise<void> {
    await this.#do('write', 'config', (client) => client.put('config', pieces, true));
    this.#identity.replace(Buffer.concat(pieces));
  }

  async get(name: string, range?: ByteRange): Promise<Uint8Array> {
    const bytes = await this.#do('read', name, (client) => client.get(name, range));
    const isWhole = range === undefined || (range.offset === 0 && bytes.length < range.length);
    if (name === 'config' && isWhole) this.#identity.learn(bytes);
    return bytes;
  }

  async list(folder: StoreFolder): Promise<StoredFile[]> {
    const { files, nowMs } = await this.#do('list', folder, (client) => client.list(folder));
    this.#learnTime(nowMs);
    return [...files];
  }

  async delete(name: string): Promise<void> {
    await this.#do('delete', name, (client) => client.delete(name));
  }

  async removeLeftovers(olderThanMs: number): Promise<void> {
    await this.#do('delete', 'leftovers', (client) => client.removeLeftovers(olderThanMs));
  }

  digest(name: string): Promise<{ readonly hash: string; readonly bytes: number }> {
    return this.#do('read', name, (client) => client.digest(name));
  }

  /** Of the time of an answer only that it is not ahead is known. */
  #learnTime(nowMs: number): void {
    this.#aheadMs = nowMs - Date.now();
  }

  /** Throws if another store lies there than before, or none any more. Within a connection the agent looks. */
  #recognize(client: StoreClient): Promise<void> {
    if (this.#recognized?.client !== client) {
      const done = this.#compare(client);
      done.catch(() => {});
      this.#recognized = { client, done };
    }
    return this.#recognized.done;
  }

  async #compare(client: StoreClient): Promise<void> {
    if (this.#wasThere && !client.isThere) throw storeIsGone();
    if (this.#identity.isKnown)
      this.#identity.compare(client.isThere ? await client.get('config') : undefined);
  }

  /** Throws SqlsyncError STORE_*. */
  async #do<T>(
    verb: string,
    name: string,
    work: (client: StoreClient, attempt: number) => Promise<T>,
  ): Promise<T> {
    try {
      const result = await this.#connection.run(0, async (client, attempt) => {
        await this.#recognize(client);
        return work(client, attempt);
      });
      if (name === 'config') this.#wasThere = true;
      return result;
    } catch (error) {
      throw this.#failure(`${verb} ${name}`, error, name);
    }
  }

  #failure(what: string, error: unknown, name: string): SqlsyncError {
    const { address } = this.#place;
    if (error instanceof StoreRefused) {
      if (error.isMissing) return missingFile(address, name, error);
      return unavailable(address, what, error, error.hint);
    }
    if (!(error instanceof SqlsyncError)) return unavailable(address, what, error);
    const { message, hint } = error;
    return new SqlsyncError('STORE_UNAVAILABLE', `Store ${address}: ${message}`, {
      cause: error,
      ...(hint === undefined ? {} : { hint }),
    });
  }
}
