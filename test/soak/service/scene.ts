import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import Database from 'better-sqlite3';
import { startFlakySftp, SFTP_SERVER_MISSING } from '../../support/flaky-sftp-host.ts';
import type { FlakySftpHost } from '../../support/flaky-sftp-host.ts';
import { SERVER_KEYS } from '../../support/s3-server.ts';
import { startServerThread } from '../../support/s3-server-thread.ts';
import type { ThreadServer } from '../../support/s3-server-thread.ts';
import { installRemote } from '../../support/ssh-cli.ts';
import { History, makeHistory } from '../storm/history.ts';
import { hooksInto } from './turns.ts';

/** What must not be shown anywhere. */
export const SECRETS = {
  password: 'hunter2-of-the-store',
  ping: 'hunter2-of-the-ping',
  token: 'hunter2-of-the-page',
} as const;

export const CELLS = 200;
const MB = 2 ** 20;

/** Times between two copies, in seconds. */
export const REPLICA_EVERY_S = 10;
export const STORE_EVERY_S = 20;

/** How many databases there are of each kind; those in the watched folder are besides. */
const COUNTS = { replica: 8, follow: 6, folder: 3, s3: 2, sftp: 2, host: 3 } as const;
const WATCHED = ['calm-1', 'calm-2', 'calm-3', 'deleted', 'damaged'] as const;

export type Kind = keyof typeof COUNTS | 'watched' | 'extra';

/** A database, and where its copy is. */
export interface Origin {
  readonly path: string;
  readonly kind: Kind;
  readonly seed: number;
  readonly history: History;
  /** The replica, as this host sees it; undefined for a store. */
  readonly replica: string | undefined;
  /** As the configuration names it. */
  readonly target: string;
}

/** Databases, hosts and configurations of a trial, in one folder. */
export class Scene {
  readonly origins: Origin[] = [];
  readonly env: NodeJS.ProcessEnv;
  readonly #folder: string;
  readonly #seed: number;
  readonly #s3: ThreadServer;
  readonly host: FlakySftpHost | undefined;

  static async start(
    folder: string,
    seed: number,
    large: number,
    after: (work: () => unknown) => void,
  ): Promise<Scene> {
    const host = await startFlakySftp(folder, { delayMs: 2, chance: 0 });
    if (host === undefined) process.emitWarning(SFTP_SERVER_MISSING);
    else {
      installRemote(host.sshd, join(folder, 'agents'));
      after(() => host.stop());
    }
    const s3 = await startServerThread({ after }, { flaky: { delayMs: 5, seed } });
    return new Scene(folder, seed, large, host, s3);
  }

  private constructor(
    folder: string,
    seed: number,
    large: number,
    host: FlakySftpHost | undefined,
    s3: ThreadServer,
  ) {
    this.#folder = folder;
    this.#seed = seed;
    this.#s3 = s3;
    this.host = host;
    this.env = {
      ...host?.env,
      AWS_ACCESS_KEY_ID: SERVER_KEYS.accessKeyId,
      AWS_SECRET_ACCESS_KEY: SERVER_KEYS.secretAccessKey,
      XDG_CACHE_HOME: this.path('cache'),
      XDG_STATE_HOME: this.path('state-home'),
    };
    for (const name of ['databases', 'watched', 'copies', 'far', 'cache', 'state-home'])
      mkdirSync(this.path(name), { mode: 0o700 });
    writeFileSync(this.path('password'), `${SECRETS.password}\n`);
    writeFileSync(this.path('token'), `${SECRETS.token}\n`, { mode: 0o600 });
    writeFileSync(this.path('ping'), `http://127.0.0.1:1/${SECRETS.ping}\n`);
    for (const [kind, count] of Object.entries(COUNTS) as [keyof typeof COUNTS, number][])
      if (host !== undefined || (kind !== 'sftp' && kind !== 'host'))
        for (let i = 1; i <= count; i++) this.#add(`databases/${kind}-${i}.db`, kind);
    for (const name of WATCHED) this.appear(name);
    this.#add('databases/extra.db', 'extra');
    for (const { path } of this.origins.slice(0, large)) grow(path);
  }

  path(...names: string[]): string {
    return join(this.#folder, ...names);
  }

  /** A new database in the watched folder. */
  appear(name: string): Origin {
    return this.#add(`watched/${name}.db`, 'watched');
  }

  get stores(): readonly {
    readonly kind: Kind;
    readonly address: string;
    readonly words: readonly string[];
  }[] {
    const encrypted = ['--password-file', this.path('password')];
    return [
      { kind: 'folder' as const, address: this.path('store'), words: encrypted },
      { kind: 's3' as const, address: `${this.#s3.address}/store`, words: [] },
      { kind: 'sftp' as const, address: `sftp:sqlsync-test:${this.path('sftp-store')}`, words: [] },
    ].filter(({ kind }) => kind !== 'sftp' || this.host !== undefined);
  }

  /** Nothing fails at the bucket from now on. */
  calm(): Promise<void> {
    return this.#s3.calm();
  }

  /** Writes the configuration; `broken` is one that has to be refused. */
  configure({ hasExtra, broken = '' }: { readonly hasExtra: boolean; readonly broken?: string }): void {
    const entries = this.origins
      .filter(({ kind }) => kind !== 'watched' && (kind !== 'extra' || hasExtra))
      .map((origin) => `  - path: ${JSON.stringify(origin.path)}\n${this.#fieldsOf(origin)}`);
    const watched = `  - folder: watched\n    schedule: ${REPLICA_EVERY_S}s\n    ${this.#hooks}
    targets: [{ replica: 'copies/{name}', options: { check: true } }]\n`;
    const text = `state: state\nscan: 2s\nconcurrency: 3\ndatabases:\n${watched}${entries.join('')}${broken}`;
    writeFileSync(this.path('sqlsync.yaml'), text);
  }

  get #hooks(): string {
    return hooksInto(this.path('turns'));
  }

  #fieldsOf({ kind, target }: Origin): string {
    const place = JSON.stringify(target);
    if (kind === 'follow')
      return `    schedule: follow\n    targets: [{ replica: ${place}, options: { interval: 500ms } }]\n`;
    const isReplica = !this.stores.some((store) => store.kind === kind);
    const everyS = isReplica ? REPLICA_EVERY_S : STORE_EVERY_S;
    const password = kind === 'folder' ? ', password-file: password' : '';
    const ping = kind === 'folder' ? '    ping-file: ping\n    verify: 1m\n' : '';
    const fields = isReplica
      ? `replica: ${place}`
      : `store: ${place}, keep: { last: 5 }, prune: true${password}`;
    return `    schedule: ${everyS}s\n    ${this.#hooks}\n${ping}    targets: [{ ${fields} }]\n`;
  }

  #add(name: string, kind: Kind): Origin {
    const options = { seed: this.#seed + this.origins.length, cells: CELLS };
    const path = this.path(name);
    const store = this.stores.find((each) => each.kind === kind);
    const file = basename(name);
    const replica = this.path(kind === 'host' ? 'far' : 'copies', file);
    const target = store?.address ?? (kind === 'host' ? `sqlsync-test:${replica}` : replica);
    // Elsewhere first: the service may look at any moment.
    makeHistory(this.path('new.db'), options);
    renameSync(this.path('new.db'), path);
    const origin = {
      path,
      kind,
      target,
      seed: options.seed,
      history: new History(options),
      replica: store === undefined ? replica : undefined,
    };
    this.origins.push(origin);
    return origin;
  }
}

/** Makes it 1 GB large. */
function grow(path: string): void {
  const database = new Database(path);
  database.exec('CREATE TABLE padding (body BLOB)');
  const insert = database.prepare('INSERT INTO padding VALUES (randomblob(?))');
  for (let i = 0; i < 1024; i++) insert.run(MB);
  database.pragma('wal_checkpoint(TRUNCATE)');
  database.close();
}
