import type { MessageOf } from '../../../protocol/messages.ts';
import type { ErrorCode, SqlsyncError } from '../../errors.ts';
import type { LinkFigures } from '../link/remote-shell.ts';
import type { RemoteOptions, SshLocation } from '../link/start-agent.ts';

export interface SetupOptions extends RemoteOptions {
  /** The host; its path is a database, or a folder to read and write, or '' for none. */
  readonly location: SshLocation;
  readonly idleTimeoutMs: number;
  /** False if the speed of the link is of no interest. */
  readonly measuresLink?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onWarning?: ((warning: string) => void) | undefined;
}

export interface SetupCheck {
  readonly name: 'login' | 'sqlsync' | 'protocol' | 'read' | 'write';
  /** 'unknown' if the check found nothing out. */
  readonly state: 'ok' | 'missing' | 'unknown';
  /** What was found, as a phrase. */
  readonly detail: string;
  /** What to run or to add if something is missing. */
  readonly mend?: string | undefined;
  readonly code?: ErrorCode | undefined;
}

export interface SetupReport {
  /** True if nothing is missing. */
  readonly ok: boolean;
  readonly checks: readonly SetupCheck[];
  /** Undefined if no shell answered, or nobody asked for it. */
  readonly link: LinkFigures | undefined;
}

/** The answer of the agent on the other host. */
export interface AgentAnswer {
  readonly hello: MessageOf<'hello'> | undefined;
  readonly snapshot: MessageOf<'snapshot'> | undefined;
  readonly failure: SqlsyncError | undefined;
}
