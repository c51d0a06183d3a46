import { withFallback } from '../../transport/fallback.ts';
import { rateLimit } from '../../transport/rate-limit.ts';
import { loginSsh } from '../../transport/ssh/ssh.ts';
import { AnswerMemory, terminalAsk } from '../../transport/terminal.ts';
import type { Login, Transport } from '../../transport/transport.ts';
import { DEFAULT_REMOTE_EXE, INSTALLED_EXE, sshOptions, startAgent } from './start-agent.ts';
import type { SshLocation, StartOptions } from './start-agent.ts';

/**
 * Another host where several agents are started. With the SSH built in they share one login, and a limited rate is that
 * of all together; with the user's own remote shell each start is a login.
 */
export class AgentHost {
  readonly #location: SshLocation;
  readonly #options: StartOptions;
  readonly #limited: (transport: Transport) => Transport;
  readonly #answers: AnswerMemory | undefined;
  /** The command that is there, once that is known. */
  #exe: string | undefined;
  #open: { readonly exe: string; readonly login: Login } | undefined;

  constructor(location: SshLocation, options: StartOptions) {
    this.#location = location;
    this.#options = options;
    const { bandwidthBytesPerS, remoteExe = DEFAULT_REMOTE_EXE } = options.remote;
    this.#limited =
      bandwidthBytesPerS === undefined ? (transport) => transport : rateLimit(bandwidthBytesPerS);
    const ask = options.ask ?? terminalAsk();
    this.#answers = ask && new AnswerMemory(ask);
    if (remoteExe !== DEFAULT_REMOTE_EXE) this.#exe = remoteExe;
  }

  /** True if a further agent needs no login of its own. */
  get sharesLogin(): boolean {
    return this.#options.remote.rsh === undefined;
  }

  /** Starts an agent, over the present login if the host lets it, or else over a new one. Throws SqlsyncError. */
  async start(): Promise<Transport> {
    if (!this.sharesLogin) return startAgent(this.#location, this.#options);
    if (this.#exe !== undefined) return this.#limited(await this.#run(this.#exe));
    const onNext = (): void => {
      this.#exe = INSTALLED_EXE;
      this.#options.onStderr?.(
        `no ${DEFAULT_REMOTE_EXE} is on the PATH of that login; ${INSTALLED_EXE} is used`,
      );
    };
    const first = await this.#run(DEFAULT_REMOTE_EXE);
    return this.#limited(withFallback(first, () => this.#run(INSTALLED_EXE), onNext));
  }

  /** Starts a further agent over the present login. Throws SqlsyncError, also if the host refuses it. */
  async startFurther(): Promise<Transport> {
    if (this.#open === undefined) throw new Error('there is no login to share');
    return this.#limited(await this.#open.login.run());
  }

  /** Ends the login, with all agents that run over it. */
  close(): void {
    this.#open?.login.close();
    this.#open = undefined;
  }

  async #run(exe: string): Promise<Transport> {
    if (this.#open?.exe === exe) {
      try {
        return await this.#open.login.run();
      } catch {
        // A new login shows what is wrong, or mends it.
      }
    }
    this.close();
    const ask = this.#answers?.forNextLogin();
    const login = await loginSsh(sshOptions(this.#location, [exe, 'agent'], { ...this.#options, ask }));
    this.#open = { exe, login };
    return login.run();
  }
}
