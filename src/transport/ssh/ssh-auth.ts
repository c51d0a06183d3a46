import type { AnyAuthMethod, ParsedKey } from 'ssh2';
import { SqlsyncError, sanitizeLine, sanitizeText } from '../../errors.ts';
import { hostKeyFingerprint } from './known-hosts.ts';
import {
  agentKeys,
  lockedAgent,
  parseIdentity,
  parsePublicKey,
  readIdentities,
  unlockIdentity,
  wrongPassphrase,
} from './ssh-identity.ts';
import type { AgentKey, Identity, Ssh2 } from './ssh-identity.ts';
import type { Ask } from '../terminal.ts';

export interface AuthOptions {
  user: string;
  /** `user@host`, for questions to the user. */
  target: string;
  /** If given: offer those files, and before them only the agent's keys that belong to them. */
  identityFiles: readonly string[] | undefined;
  /** The folder whose `.ssh` holds the default keys; by default as OpenSSH. */
  home?: string | undefined;
  /** True to offer no keys but those of `identityFiles`. */
  identitiesOnly: boolean;
  /** The socket of the agent, or false for none. */
  agentSocket: string | false;
  allows: { publicKey: boolean; password: boolean; keyboardInteractive: boolean };
  /** How to ask the user; undefined if nobody can be asked. */
  ask: Ask | undefined;
  /** How often the user may be asked for one secret. */
  promptCount: number;
  /** What only OpenSSH can use, each as part of a sentence. */
  unused: readonly string[];
}

/** Makes the next offer; undefined if there is nothing to offer after all. */
type Attempt = () => AnyAuthMethod | undefined | Promise<AnyAuthMethod | undefined>;

/**
 * What one connection offers to prove its identity, in order, and the results.
 *
 *     first, as OpenSSH:      nothing: the host answers with the methods that it accepts
 *     identity files named:   agent's keys of those files → the files → the agent's other keys
 *     none named:             agent's keys of ~/.ssh/id_ed25519, id_ecdsa, id_rsa → its other keys → those files
 *     then, on a terminal:    what the host asks (keyboard-interactive) → a password
 *
 * Hosts hang up after a few refused keys (MaxAuthTries, 6 by default). So the named keys come first, each once, and no
 * key if the host takes none (any more).
 */
export class SshAuthentication {
  /** True after every attempt was refused, or if there was none. */
  exhausted = false;
  readonly #ssh2: Ssh2;
  readonly #options: AuthOptions;
  readonly #attempts: Attempt[] = [];
  /** What was tried or could not be tried, for the message, in order. */
  readonly #notes: string[] = [];
  readonly #unused: string[];
  #agentFault: string | undefined;
  #hasLockedKey = false;
  #methodsLeft: string[] = [];
  #isObserved = false;
  /** Public keys, as base64, that were offered. */
  readonly #offered = new Set<string>();
  #lastOffered: string | undefined;
  #withheldKeys = false;
  #agentKeys: Promise<AgentKey[]> | undefined;

  static async plan(ssh2: Ssh2, options: AuthOptions): Promise<SshAuthentication> {
    const plan = new SshAuthentication(ssh2, options);
    // Some hosts identify their users by other means (Tailscale).
    plan.#attempts.push(() => ({ type: 'none', username: options.user }));
    if (options.allows.publicKey) await plan.#addKeys();
    plan.#addQuestions();
    return plan;
  }

  private constructor(ssh2: Ssh2, options: AuthOptions) {
    this.#ssh2 = ssh2;
    this.#options = options;
    this.#unused = [...options.unused];
  }

  /** The next attempt; false when nothing is left. Rejects if the user declines to answer. */
  async next(methodsLeft: readonly string[] | null): Promise<AnyAuthMethod | false> {
    if (methodsLeft !== null && !this.#isObserved) this.#methodsLeft = [...methodsLeft];
    for (;;) {
      const attempt = this.#attempts.shift();
      if (attempt === undefined) break;
      const method = await attempt();
      if (method !== undefined) return method;
    }
    this.exhausted = true;
    return false;
  }

  /** Records the methods that the host accepts now; ssh2 forgets the answer to an agent's key. */
  noteMethodsLeft(methods: readonly string[]): void {
    this.#isObserved = true;
    this.#methodsLeft = [...methods];
  }

  /** ssh2 reports faults of the agent and of signing as errors, then continues with the next attempt. */
  noteFault(error: Error): void {
    // The key made no signature, so another source may offer it again.
    if (this.#lastOffered !== undefined) this.#offered.delete(this.#lastOffered);
    if (error instanceof SqlsyncError) this.#notes.push(error.message);
    else this.#agentFault = sanitizeText(error.message, 200);
  }

  /** AUTH_FAILED, with what was tried and a hint; `login` is the `ssh` command for it. */
  failure(target: string, login: string, reason?: string): SqlsyncError {
    const none = this.#withheldKeys ? 'no key was offered' : 'there was no key to offer';
    const tried = this.#notes.length === 0 ? none : `tried: ${this.#notes.join('; ')}`;
    const agent = this.#agentFault === undefined ? '' : `; the agent failed: ${this.#agentFault}`;
    const unused =
      this.#unused.length === 0 ? '' : `; the SSH built into sqlsync cannot use ${this.#unused.join(', ')}`;
    const accepts =
      this.#methodsLeft.length === 0
        ? ''
        : `; the host accepts ${sanitizeText(this.#methodsLeft.join(', '), 100)}`;
    const why = reason === undefined ? '' : ` (${sanitizeText(reason, 200)})`;
    const message = `${target} refused to log in${why}; ${tried}${agent}${unused}${accepts}`;
    return new SqlsyncError('AUTH_FAILED', message, { hint: this.#hint(login) });
  }

  #hint(login: string): string {
    if (this.#unused.length > 0) {
      return 'Add `--rsh ssh`: then OpenSSH itself logs in, with certificates and hardware keys too.';
    }
    if (this.#hasLockedKey) {
      return 'There is no terminal to ask for the passphrase on: load the encrypted key into an agent with `ssh-add`.';
    }
    if (this.#methodsLeft.length > 0 && !this.#methodsLeft.includes('publickey')) {
      return this.#options.ask === undefined
        ? 'The host accepts no keys, and there is no terminal to ask for a password on: allow keys there.'
        : 'The host accepts no keys: check the user name and the password.';
    }
    return `Add your public key there with \`ssh-copy-id\`, name another key, or check that \`${login}\` logs in.`;
  }

  async #addKeys(): Promise<void> {
    const { agentSocket, identityFiles, identitiesOnly, home } = this.#options;
    const { found, notes, unused } = await readIdentities(identityFiles, home);
    this.#notes.push(...notes);
    this.#unused.push(...unused);
    const isKnown = (key: Buffer): boolean => found.some(({ publicKey }) => publicKey?.equals(key) === true);
    const offerAgent = (offers: (key: Buffer) => boolean): void => {
      if (agentSocket !== false && agentSocket !== '')
        this.#attempts.push(() => this.#queueAgentKeys(agentSocket, offers));
    };
    const offersOthers = !identitiesOnly;
    offerAgent(isKnown);
    if (offersOthers && identityFiles === undefined) offerAgent((key) => !isKnown(key));
    for (const identity of found) this.#addIdentity(identity);
    if (offersOthers && identityFiles !== undefined) offerAgent((key) => !isKnown(key));
  }

  /** Puts an attempt for each of these keys of the agent before all others. */
  async #queueAgentKeys(socket: string, offers: (key: Buffer) => boolean): Promise<undefined> {
    if (this.#takesNoKeys()) return;
    try {
      this.#agentKeys ??= agentKeys(this.#ssh2, socket);
      const keys = (await this.#agentKeys).filter(({ publicKey }) => offers(publicKey));
      const attempts = keys.map(({ publicKey, agent }): Attempt => () => {
        if (!this.#mayOffer(publicKey)) return undefined;
        this.#notes.push(`agent key ${hostKeyFingerprint(publicKey)}`);
        return { type: 'agent', username: this.#options.user, agent };
      });
      this.#attempts.unshift(...attempts);
    } catch (error) {
      this.#agentFault = sanitizeText(error instanceof Error ? error.message : String(error), 200);
    }
  }

  /** True the first time that this key comes up, while the host takes keys. */
  #mayOffer(publicKey: Buffer): boolean {
    const blob = publicKey.toString('base64');
    if (this.#takesNoKeys() || this.#offered.has(blob)) return false;
    this.#offered.add(blob);
    this.#lastOffered = blob;
    return true;
  }

  #takesNoKeys(): boolean {
    const takesNone = this.#methodsLeft.length > 0 && !this.#methodsLeft.includes('publickey');
    this.#withheldKeys ||= takesNone;
    return takesNone;
  }

  #addIdentity(identity: Identity): void {
    const username = this.#options.user;
    if (identity.privateKey === undefined) return this.#addPublicHalf(identity);
    if (identity.encrypted) return this.#addLockedIdentity(identity);
    const key = parseIdentity(this.#ssh2, identity);
    if (typeof key === 'string') {
      this.#notes.push(`${identity.path}: ${key}`);
      return;
    }
    this.#attempts.push(() => {
      if (!this.#mayOffer(key.getPublicSSH())) return undefined;
      this.#noteOffer(identity, key);
      return { type: 'publickey', username, key };
    });
  }

  /** Only the agent can offer this key. */
  #addPublicHalf({ path, publicKey }: Identity): void {
    this.#attempts.push(() => {
      const wasOffered = publicKey !== undefined && this.#offered.has(publicKey.toString('base64'));
      if (!wasOffered) this.#notes.push(`${path}: only its public half is there, and no agent holds the key`);
      return undefined;
    });
  }

  #addLockedIdentity(identity: Identity): void {
    const { ask, promptCount, user: username } = this.#options;
    if (ask === undefined || promptCount === 0) {
      this.#hasLockedKey = true;
      this.#notes.push(`${identity.path}: encrypted with a passphrase, so only an agent can use it`);
      return;
    }
    const unlock = async (): Promise<ParsedKey> => {
      const key = await unlockIdentity(this.#ssh2, identity, ask, promptCount);
      if (key === undefined) throw wrongPassphrase(identity.path);
      return key;
    };
    this.#attempts.push(async () => {
      if (this.#takesNoKeys()) return undefined;
      const publicKey = parsePublicKey(this.#ssh2, identity);
      if (publicKey !== undefined) {
        if (!this.#mayOffer(publicKey.getPublicSSH())) return undefined;
        this.#noteOffer(identity, publicKey);
        return { type: 'agent', username, agent: lockedAgent(this.#ssh2, publicKey, unlock) };
      }
      const key = await unlockIdentity(this.#ssh2, identity, ask, promptCount);
      if (key === undefined) this.noteFault(wrongPassphrase(identity.path));
      return key === undefined ? undefined : { type: 'publickey', username, key };
    });
  }

  #noteOffer(identity: Identity, key: ParsedKey): void {
    this.#notes.push(`${identity.path} (${hostKeyFingerprint(key.getPublicSSH())})`);
  }

  /** Only for methods that the host accepts, and only if the user can be asked. */
  #addQuestions(): void {
    const { ask, allows, promptCount, user: username, target } = this.#options;
    if (ask === undefined) return;
    for (let attempt = 0; attempt < promptCount && allows.keyboardInteractive; attempt++) {
      this.#attempts.push(() => {
        if (!this.#methodsLeft.includes('keyboard-interactive')) return undefined;
        if (attempt === 0) this.#notes.push('what the host asked');
        return { type: 'keyboard-interactive', username, prompt: interrogation(target, ask) };
      });
    }
    for (let attempt = 0; attempt < promptCount && allows.password; attempt++) {
      this.#attempts.push(async () => {
        if (!this.#methodsLeft.includes('password')) return undefined;
        const password = await ask(`Password of ${target}: `, false);
        if (attempt === 0) this.#notes.push('a password');
        return { type: 'password', username, password };
      });
    }
  }
}

type Interrogation = Extract<AnyAuthMethod, { type: 'keyboard-interactive' }>['prompt'];

/**
 * Puts the host's questions to the user. Each names the host, because the host words it, and is one line: on a separate
 * line it could look like a question of ours.
 */
function interrogation(target: string, ask: Ask): Interrogation {
  return (name, instructions, _language, prompts, finish) => {
    const answer = async (): Promise<void> => {
      const heading = sanitizeLine([name, instructions].filter((text) => text !== '').join(': '), 300);
      const answers: string[] = [];
      for (const { prompt, echo } of prompts) {
        const before = answers.length === 0 && heading !== '' ? `${heading}: ` : '';
        answers.push(await ask(`(${target}) ${before}${sanitizeLine(prompt, 300)} `, echo === true));
      }
      finish(answers);
    };
    // A user who declines to answer has ended the login.
    answer().catch(() => {});
  };
}
