import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { BaseAgent, ParsedKey } from 'ssh2';
import { SqlsyncError, sanitizeText, systemErrorCode } from '../../errors.ts';
import { hostKeyType } from './known-hosts.ts';
import { inspectPrivateKey, parsePublicKeyFile } from './ssh-key-file.ts';
import { sshHome } from './ssh-home.ts';
import type { Ask } from '../terminal.ts';

export type Ssh2 = typeof import('ssh2');

/** The identity files that OpenSSH tries if none are named, best first. */
const DEFAULT_IDENTITY_NAMES = ['id_ed25519', 'id_ecdsa', 'id_rsa'];

export interface Identity {
  /** Sanitized, for messages. */
  path: string;
  publicKey: Buffer | undefined;
  encrypted: boolean;
  /** undefined if only the public half exists; it says which key of an agent to use. */
  privateKey: Buffer | undefined;
}

/** The identities that were read, and what to tell the user if the login fails. */
export interface Identities {
  found: Identity[];
  notes: string[];
  /** Keys that only OpenSSH can use, each as part of a sentence. */
  unused: string[];
}

/** Reads the private keys of `paths`, or the default ones that exist in `home`. */
export async function readIdentities(
  paths: readonly string[] | undefined,
  home: string = sshHome(),
): Promise<Identities> {
  const identities: Identities = { found: [], notes: [], unused: [] };
  for (const path of paths ?? DEFAULT_IDENTITY_NAMES.map((name) => join(home, '.ssh', name))) {
    await readIdentity(path, paths !== undefined, identities);
  }
  return identities;
}

async function readIdentity(path: string, named: boolean, into: Identities): Promise<void> {
  const shown = sanitizeText(path, 200);
  let privateKey: Buffer;
  try {
    privateKey = await readFile(path);
  } catch (error) {
    const publicKey = await readPublicKey(`${path}.pub`);
    if (publicKey !== undefined) return addPublicHalf(`${shown}.pub`, publicKey, into);
    const code = systemErrorCode(error) ?? 'unreadable';
    if (named || code !== 'ENOENT') into.notes.push(`${shown}: cannot be read (${code})`);
    return;
  }
  const info = inspectPrivateKey(privateKey.toString('latin1'));
  if (info === undefined) {
    const publicKey = parsePublicKeyFile(privateKey.toString('latin1'));
    if (publicKey !== undefined) return addPublicHalf(shown, publicKey, into);
    into.notes.push(`${shown}: not a private key`);
    return;
  }
  if (existsSync(`${path}-cert.pub`)) into.unused.push(`the certificate ${shown}-cert.pub`);
  const publicKey = info.publicKey ?? (await readPublicKey(`${path}.pub`));
  if (publicKey !== undefined && hostKeyType(publicKey).startsWith('sk-')) {
    into.unused.push(`the hardware key ${shown}`);
    return;
  }
  into.found.push({ path: shown, publicKey, encrypted: info.encrypted, privateKey });
}

function addPublicHalf(path: string, publicKey: Buffer, into: Identities): void {
  into.found.push({ path, publicKey, encrypted: false, privateKey: undefined });
}

async function readPublicKey(path: string): Promise<Buffer | undefined> {
  try {
    return parsePublicKeyFile(await readFile(path, 'latin1'));
  } catch {
    return undefined; // it only shows the public key without the passphrase
  }
}

/** The public half as ssh2 represents it; undefined if ssh2 does not support its type. */
export function parsePublicKey(ssh2: Ssh2, { publicKey }: Identity): ParsedKey | undefined {
  if (publicKey === undefined) return undefined;
  const text = `${hostKeyType(publicKey)} ${publicKey.toString('base64')}`;
  const key = ssh2.utils.parseKey(text) as ParsedKey | ParsedKey[] | Error;
  return key instanceof Error || Array.isArray(key) ? undefined : key;
}

/** The private key; if it cannot be used, the reason, sanitized. */
export function parseIdentity(ssh2: Ssh2, identity: Identity, passphrase?: string): ParsedKey | string {
  if (identity.privateKey === undefined) return 'only its public half is there';
  const key = ssh2.utils.parseKey(identity.privateKey, passphrase) as ParsedKey | ParsedKey[] | Error;
  if (key instanceof Error) return sanitizeText(key.message, 200);
  return (Array.isArray(key) ? key[0] : key) ?? 'holds no key';
}

/** Asks for the passphrase until it fits, at most `promptCount` times; undefined if it never did. */
export async function unlockIdentity(
  ssh2: Ssh2,
  identity: Identity,
  ask: Ask,
  promptCount: number,
): Promise<ParsedKey | undefined> {
  for (let attempt = 0; attempt < promptCount; attempt++) {
    const passphrase = await ask(`Passphrase for the key ${identity.path}: `, false);
    if (passphrase === '') return undefined; // as with OpenSSH: go on without this key
    const key = parseIdentity(ssh2, identity, passphrase);
    if (typeof key !== 'string') return key;
  }
  return undefined;
}

/**
 * An agent that holds one encrypted key, and calls `unlock` when it must sign. So the user is asked for the passphrase
 * only after the host has accepted the key. `unlock` rejects if it cannot.
 */
export function lockedAgent(ssh2: Ssh2, publicKey: ParsedKey, unlock: () => Promise<ParsedKey>): BaseAgent {
  // Its types require overloads that no method can implement.
  const Base = ssh2.BaseAgent as unknown as new () => object;
  class LockedAgent extends Base {
    getIdentities(callback: (error: Error | undefined, keys?: ParsedKey[]) => void): void {
      callback(undefined, [publicKey]);
    }

    sign(_publicKey: unknown, data: Buffer, options: { hash?: string }, callback: Signed): void {
      void sign(unlock, data, options.hash, callback);
    }
  }
  return new LockedAgent() as unknown as BaseAgent;
}

type Signed = (error: Error | undefined, signature?: Buffer) => void;

async function sign(
  unlock: () => Promise<ParsedKey>,
  data: Buffer,
  hash: string | undefined,
  callback: Signed,
): Promise<void> {
  let signature: Buffer | Error;
  try {
    signature = (await unlock()).sign(data, hash) as Buffer | Error;
  } catch (error) {
    signature = error instanceof Error ? error : new Error(String(error));
  }
  if (signature instanceof Error) callback(signature);
  else callback(undefined, signature);
}

/** A key of an agent, and an agent that offers and signs with that key alone. */
export interface AgentKey {
  publicKey: Buffer;
  agent: BaseAgent;
}

/** The keys of the agent at `socket`. Rejects if it does not answer. */
export async function agentKeys(ssh2: Ssh2, socket: string): Promise<AgentKey[]> {
  // ssh2's own factory distinguishes OpenSSH's socket, Pageant and Cygwin's.
  const agent = ssh2.createAgent(socket);
  const keys = await new Promise<ParsedKey[]>((resolve, reject) =>
    agent.getIdentities((error, found) => (error ? reject(error) : resolve((found ?? []) as ParsedKey[]))),
  );
  return keys.map((key) => {
    const one = ssh2.createAgent(socket);
    one.getIdentities = (callback) => callback(undefined, [key]);
    return { publicKey: key.getPublicSSH(), agent: one };
  });
}

export function wrongPassphrase(path: string): SqlsyncError {
  return new SqlsyncError('AUTH_FAILED', `${path}: no passphrase that fits was given`, {
    hint: 'Run sqlsync again, or load the key into an agent with `ssh-add`.',
  });
}
