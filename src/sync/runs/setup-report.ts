import type { MessageOf } from '../../../protocol/messages.ts';
import type { ErrorCode, SqlsyncError } from '../../errors.ts';
import type { LinkFigures } from '../link/remote-shell.ts';
import type { RemoteOptions, SshLocation } from '../link/start-agent.ts';

export interface SetupOptions extends RemoteOptions {
  /** The host; its path, '' for none, is a database or a folder that is to be read and written. */
  readonly location: SshLocation;
  readonly idleTimeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  readonly onWarning?: ((warning: string) => void) | undefined;
}

export interface SetupCheck {
  readonly name: 'login' | 'sqlsync' | 'protocol' | 'read' | 'write';
  /** 'unknown' where nothing could be found out. */
  readonly state: 'ok' | 'missing' | 'unknown';
  /** What was found, a phrase. */
  readonly detail: string;
  /** What to run or to add, where something is missing. */
  readonly mend?: string | undefined;
  readonly code?: ErrorCode | undefined;
}

export interface SetupReport {
  /** True if nothing is missing. */
  readonly ok: boolean;
  readonly checks: readonly SetupCheck[];
  /** Undefined if no shell could be asked. */
  readonly link: LinkFigures | undefined;
}

/** What the agent on the other host said. */
export interface AgentAnswer {
  readonly hello: MessageOf<'hello'> | undefined;
  readonly snapshot: MessageOf<'snapshot'> | undefined;
  readonly failure: SqlsyncError | undefined;
}
