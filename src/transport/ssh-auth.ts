import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { AnyAuthMethod, BaseAgent, ParsedKey } from 'ssh2';
import { SqlsyncError, sanitizeText, systemErrorCode } from '../errors.ts';
import { hostKeyFingerprint } from './known-hosts.ts';
import { inspectPrivateKey, parsePublicKeyFile } from './ssh-key-file.ts';

type Ssh2 = typeof import('ssh2');

/** The identity files that are tried where none are named, as OpenSSH does, best first. */
const DEFAULT_IDENTITY_NAMES = ['id_ed25519', 'id_ecdsa', 'id_rsa'];

export interface AuthOptions {
  user: string;
  /** Given: those files, and only the agent's keys that belong to them are offered before them. */
  identityFiles?: string[] | undefined;
  /** The socket of the agent; false: none. By default SSH_AUTH_SOCK. */
  agentSocket?: string | false | undefined;
}

/** One key, or all keys of an agent, to offer to the host. */
interface Attempt {
  /** For the message; an agent's keys are named as they are offered. */
  name?: string;
  method: AnyAuthMethod;
}

interface Identity {
  path: string;
  publicKey: Buffer | undefined;
  encrypted: boolean;
  privateKey: Buffer;
}

/**
 * What one connection offers to prove who it is, in order; and what became of it.
 *
 *     identity files named:   agent's keys of those files → the files → the agent's other keys
 *     none named:             agent's keys → ~/.ssh/id_ed25519, id_ecdsa, id_rsa
 *
 * Hosts hang up after a few refused keys (MaxAuthTries, 6 by default): hence the named ones first.
 */
export class SshAuthentication {
  /** Every attempt was refused, or there was none. */
  exhausted = false;
  readonly #attempts: Attempt[] = [];
  /** What was tried or could not be, for the message, in order. */
  readonly #notes: string[] = [];
  #agentFault: string | undefined;
  #hasEncryptedKey = false;
  #methodsLeft: string[] = [];

  static async plan(ssh2: Ssh2, options: AuthOptions): Promise<SshAuthentication> {
    const plan = new SshAuthentication();
    const socket = options.agentSocket ?? process.env['SSH_AUTH_SOCK'] ?? '';
    const identities = await plan.#readIdentities(options);
    const known = identities.map((identity) => identity.publicKey).filter((key) => key !== undefined);
    const username = options.user;
    const offerAgent = (offers: (key: Buffer) => boolean): void => {
      if (socket === false || socket === '') return;
      const agent = filteredAgent(ssh2, socket, offers, (key) => plan.#notes.push(`agent key ${key}`));
      plan.#attempts.push({ method: { type: 'agent', username, agent } });
    };
    const isKnown = (key: Buffer): boolean => known.some((other) => other.equals(key));
    const named = options.identityFiles !== undefined;
    offerAgent(named ? isKnown : () => true);
    for (const identity of identities) plan.#addIdentity(ssh2, username, identity);
    if (named) offerAgent((key) => !isKnown(key));
    // Some hosts know their users by other means (Tailscale); all others answer with the methods that they accept.
    plan.#attempts.push({ method: { type: 'none', username } });
    return plan;
  }

  /** The next attempt, in the form that ssh2's `authHandler` gives on; false when nothing is left. */
  next(methodsLeft: readonly string[] | null): AnyAuthMethod | false {
    if (methodsLeft !== null) this.#methodsLeft = [...methodsLeft];
    const attempt = this.#attempts.shift();
    if (attempt === undefined) {
      this.exhausted = true;
      return false;
    }
    if (attempt.name !== undefined) this.#notes.push(attempt.name);
    return attempt.method;
  }

  /** ssh2 reports faults of the agent and of signing as errors, and then goes on to the next attempt. */
  noteFault(error: Error): void {
    this.#agentFault = sanitizeText(error.message, 200);
  }

  /** AUTH_FAILED, saying what was tried and, in `hint`, what to do; `login` is the `ssh` command for it. */
  failure(target: string, login: string, reason?: string): SqlsyncError {
    const tried = this.#notes.length === 0 ? 'there was no key to offer' : `tried: ${this.#notes.join('; ')}`;
    const agent = this.#agentFault === undefined ? '' : `; the agent failed: ${this.#agentFault}`;
    const accepts =
      this.#methodsLeft.length === 0
        ? ''
        : `; the host accepts ${sanitizeText(this.#methodsLeft.join(', '), 100)}`;
    const why = reason === undefined ? '' : ` (${sanitizeText(reason, 200)})`;
    return new SqlsyncError('AUTH_FAILED', `${target} refused to log in${why}; ${tried}${agent}${accepts}`, {
      hint: this.#hint(login),
    });
  }

  #hint(login: string): string {
    if (this.#hasEncryptedKey) {
      return 'sqlsync asks for no passphrase: load the encrypted key into an agent with `ssh-add`.';
    }
    if (this.#methodsLeft.length > 0 && !this.#methodsLeft.includes('publickey')) {
      return 'The host accepts no keys; sqlsync asks for no passwords: allow keys there.';
    }
    return `Add your public key there with \`ssh-copy-id\`, name another key, or check that \`${login}\` logs in.`;
  }

  async #readIdentities(options: AuthOptions): Promise<Identity[]> {
    const named = options.identityFiles;
    const paths = named ?? DEFAULT_IDENTITY_NAMES.map((name) => join(homedir(), '.ssh', name));
    const identities: Identity[] = [];
    for (const path of paths) {
      const identity = await this.#readIdentity(path, named !== undefined);
      if (identity !== undefined) identities.push(identity);
    }
    return identities;
  }

  async #readIdentity(path: string, named: boolean): Promise<Identity | undefined> {
    const shown = sanitizeText(path, 200);
    let privateKey: Buffer;
    try {
      privateKey = await readFile(path);
    } catch (error) {
      const code = systemErrorCode(error) ?? 'unreadable';
      if (named || code !== 'ENOENT') this.#notes.push(`${shown}: cannot be read (${code})`);
      return undefined;
    }
    const info = inspectPrivateKey(privateKey.toString('latin1'));
    if (info === undefined) {
      this.#notes.push(`${shown}: not a private key`);
      return undefined;
    }
    const publicKey = info.publicKey ?? (await readPublicKey(`${path}.pub`));
    return { path: shown, publicKey, encrypted: info.encrypted, privateKey };
  }

  #addIdentity(ssh2: Ssh2, username: string, identity: Identity): void {
    if (identity.encrypted) {
      this.#hasEncryptedKey = true;
      this.#notes.push(`${identity.path}: encrypted with a passphrase, so only an agent can use it`);
      return;
    }
    const key = ssh2.utils.parseKey(identity.privateKey) as ParsedKey | ParsedKey[] | Error;
    if (key instanceof Error) {
      this.#notes.push(`${identity.path}: ${sanitizeText(key.message, 200)}`);
      return;
    }
    const first = Array.isArray(key) ? key[0] : key;
    if (first === undefined) return;
    const name = `${identity.path} (${hostKeyFingerprint(first.getPublicSSH())})`;
    this.#attempts.push({ name, method: { type: 'publickey', username, key: first } });
  }
}

async function readPublicKey(path: string): Promise<Buffer | undefined> {
  try {
    return parsePublicKeyFile(await readFile(path, 'latin1'));
  } catch {
    return undefined; // only serves to find the key in the agent
  }
}

/** The agent at `socket`, offering only some of its keys, and telling which. */
function filteredAgent(
  ssh2: Ssh2,
  socket: string,
  offers: (publicKey: Buffer) => boolean,
  onOffer: (fingerprint: string) => void,
): BaseAgent {
  // ssh2's own factory, since it tells apart OpenSSH's socket, Pageant and Cygwin's.
  const agent = ssh2.createAgent(socket);
  const getIdentities = agent.getIdentities.bind(agent);
  agent.getIdentities = (callback) => {
    getIdentities((error, keys) => {
      if (error) return callback(error);
      const offered = ((keys ?? []) as ParsedKey[]).filter((key) => offers(key.getPublicSSH()));
      for (const key of offered) onOffer(hostKeyFingerprint(key.getPublicSSH()));
      callback(undefined, offered);
    });
  };
  return agent;
}
