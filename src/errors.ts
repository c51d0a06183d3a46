/**
 * The codes of {@link SqlsyncError}. They are stable: scripts may match on them, and they cross the wire and
 * process borders unchanged. `cli/terminal/exit.ts` maps each to an exit status; docs/cli.md documents the table.
 */
export const ERROR_CODES = [
  // Set-up of this installation
  'NODE_UNSUPPORTED',
  'BINDING_MISSING',
  'BINDING_BROKEN',
  'BINDING_BUILD_FAILED',
  // The request
  'USAGE',
  'SAME_FILE',
  'BOTH_REMOTE',
  'SWAPPED',
  'LOCKED',
  'CONFIG_INVALID',
  // The origin
  'ORIGIN_NOT_FOUND',
  'ORIGIN_NOT_A_DATABASE',
  'ORIGIN_UNREADABLE',
  'ORIGIN_PERMISSION',
  'ORIGIN_HOT_JOURNAL',
  'ORIGIN_CHECKSUM_VFS',
  'ORIGIN_REPLACED',
  'ORIGIN_CHANGED',
  'ORIGIN_TOO_LARGE',
  'ORIGIN_ALIAS',
  'ORIGIN_SHRUNK',
  // The replica
  'REPLICA_NOT_A_DATABASE',
  'REPLICA_UNWRITABLE',
  'REPLICA_NOT_MARKED',
  'REPLICA_PAGE_SIZE',
  'REPLICA_LEFTOVER',
  'REPLICA_REPLACED',
  'REPLICA_EXISTS',
  'REPLICA_CHECKSUM_VFS',
  'REPLICA_LINK',
  'ROOT_MISMATCH',
  'CHANGES_MISSED',
  'BUSY',
  // The backup store
  'STORE_NOT_FOUND',
  'STORE_EXISTS',
  'STORE_UNAVAILABLE',
  'STORE_VERSION',
  'STORE_PASSWORD',
  'STORE_CHANGED',
  'STORE_PRUNED',
  'STORE_DAMAGED',
  'STORE_FILE_MISSING',
  'SNAPSHOT_NOT_FOUND',
  'SNAPSHOT_INCOMPLETE',
  'BACKUP_PARTIAL',
  'TEMP_UNAVAILABLE',
  'DUMP_PARTIAL',
  // The connection
  'CONNECT_FAILED',
  'HOST_KEY_MISMATCH',
  'HOST_KEY_UNKNOWN',
  'AUTH_FAILED',
  'REMOTE_EXE_NOT_FOUND',
  'CONNECTION_LOST',
  'TIMEOUT',
  'SNAPSHOT_LIMIT',
  // The pools
  'DATABASE_UNUSABLE',
  'BUSY_TIMEOUT',
  'READ_TIMEOUT',
  'READ_ONLY',
  'TRANSACTION_CONTROL',
  'TX_ENDED',
  'NESTED_WRITE',
  'BULK_INTERRUPTED',
  'WORKER_LOST',
  'CLOSED',
  'ABORTED',
  // The conversation
  'PROTOCOL',
  'PROTOCOL_VERSION',
  'RESTRICTED',
  'INTERRUPTED',
  'SYSTEM_ERROR',
  'INTERNAL',
] as const;

export type ErrorCode = (typeof ERROR_CODES)[number];

/**
 * Whether the work was done in spite of the failure. `committed`: all of it is done, and something failed afterwards.
 * `unknown`: it may be done, because the other side was lost before it confirmed the commit. Without an outcome nothing
 * was done.
 */
export type FailureOutcome = 'committed' | 'unknown';

export interface SqlsyncErrorOptions {
  /** What the user can do next, as one sentence or command. */
  hint?: string;
  cause?: unknown;
  /** See {@link SqlsyncError.outcome}. */
  outcome?: FailureOutcome | undefined;
}

/**
 * The only error that sqlsync reports about the world (our own bugs are assertion errors). `message` states what was
 * observed against what was expected, `hint` what to do next.
 */
export class SqlsyncError extends Error {
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly outcome: FailureOutcome | undefined;

  constructor(code: ErrorCode, message: string, options: SqlsyncErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'SqlsyncError';
    this.code = code;
    this.hint = options.hint;
    this.outcome = options.outcome;
  }
}

/** `code` as an {@link ErrorCode}; a code that this version does not know (a newer peer's) reads as PROTOCOL. */
export function parseErrorCode(code: string): ErrorCode {
  return (ERROR_CODES as readonly string[]).includes(code) ? (code as ErrorCode) : 'PROTOCOL';
}

/** Resources that the system lacks, by its error code: no file or host is at fault then. */
const SHORTAGES: Readonly<Record<string, readonly [what: string, hint: string]>> = {
  EMFILE: [
    'this process may open no more files',
    'Raise the limit (`ulimit -n`; LimitNOFILE= in a systemd unit).',
  ],
  ENFILE: ['the system may open no more files', 'Raise fs.file-max, or end programs that hold many files.'],
  EAGAIN: [
    'the system has no more processes or memory',
    'Raise the limit (`ulimit -u`; TasksMax= in a systemd unit).',
  ],
  ENOMEM: ['there is no memory left', 'Allow more memory, or end other programs.'],
  SQLITE_NOMEM: ['there is no memory left', 'Allow more memory, or end other programs.'],
};

/** The error if the system has no more of a resource; undefined for any other error. */
export function shortageError(doing: string, error: unknown): SqlsyncError | undefined {
  const code = systemErrorCode(error) ?? '';
  const [what, hint] = SHORTAGES[code] ?? [];
  if (what === undefined || hint === undefined) return undefined;
  return new SqlsyncError('SYSTEM_ERROR', `${doing}: ${what} (${code})`, { hint, cause: error });
}

/** System errors that nothing explained before. Node.js has its own codes, which are our faults: ERR_…. */
function systemError(error: unknown, message: string): SqlsyncError | undefined {
  const code = systemErrorCode(error) ?? '';
  if (!/^(?:E(?!RR_)[A-Z0-9]+|SQLITE_(?:IOERR|CANTOPEN|FULL)\w*)$/.test(code)) return undefined;
  const said = message.includes(code) ? message : `${message} (${code})`;
  return new SqlsyncError('SYSTEM_ERROR', `The system refused: ${said}`, {
    hint: 'Check the named file, its permissions, the disk and the limits of this process.',
    cause: error,
  });
}

/**
 * Any thrown value as a SqlsyncError. A system error becomes SYSTEM_ERROR, anything else INTERNAL with its cause kept.
 */
export function toSqlsyncError(error: unknown): SqlsyncError {
  if (error instanceof SqlsyncError) return error;
  const message = error instanceof Error ? error.message : String(error);
  const known = shortageError('The system refused', error) ?? systemError(error, message);
  if (known !== undefined) return known;
  return new SqlsyncError('INTERNAL', message, {
    cause: error,
    hint: 'This is a bug in sqlsync: please report it.',
  });
}

/** The `code` of a Node.js or SQLite error (ENOENT, SQLITE_BUSY, …); undefined if it has none. */
export function systemErrorCode(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

/** An error as data, for messages between threads and processes: a clone of an error loses its class and its code. */
export interface ErrorData {
  readonly name: string;
  readonly message: string;
  readonly code: string | undefined;
  readonly hint: string | undefined;
  readonly outcome: FailureOutcome | undefined;
  /** Where it happened. */
  readonly stack: string | undefined;
  readonly cause: ErrorData | undefined;
}

/** Causes are kept to this depth: a chain of causes may have no end. */
const CAUSES_KEPT = 3;

export function errorToData(error: unknown, causes: number = CAUSES_KEPT): ErrorData {
  const { name, message, stack, cause } = error instanceof Error ? error : new Error(String(error));
  const ours = error instanceof SqlsyncError ? error : undefined;
  return {
    name,
    message,
    code: systemErrorCode(error),
    hint: ours?.hint,
    outcome: ours?.outcome,
    stack,
    cause: cause === undefined || causes === 0 ? undefined : errorToData(cause, causes - 1),
  };
}

/** The errors of JavaScript that keep their class. */
const BUILT_IN: readonly ErrorConstructor[] = [TypeError, RangeError];

/** The error that {@link errorToData} was given: a SqlsyncError, or an error with its name and code. */
export function errorFromData({ name, message, code, hint, outcome, stack, cause }: ErrorData): Error {
  const options = cause === undefined ? {} : { cause: errorFromData(cause) };
  let error: Error;
  if (name === 'SqlsyncError') {
    const advice = hint === undefined ? {} : { hint };
    error = new SqlsyncError(parseErrorCode(code ?? ''), message, { ...options, ...advice, outcome });
  } else {
    const BuiltIn = BUILT_IN.find((known) => known.name === name) ?? Error;
    error = Object.assign(new BuiltIn(message, options), code === undefined ? {} : { code });
  }
  if (error.name !== name) error.name = name;
  if (stack !== undefined) error.stack = stack;
  return error;
}

// oxlint-disable-next-line no-control-regex -- control characters are exactly what must go
const UNSAFE_CHARACTERS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g;

/**
 * Makes text from a peer or a file safe to show on a terminal: control characters (C0, C1, bidi overrides) become `�`,
 * and it is cut to `maxLength` characters.
 */
export function sanitizeText(text: string, maxLength = 500): string {
  const clean = text.replace(UNSAFE_CHARACTERS, '\ufffd');
  return clean.length > maxLength ? `${clean.slice(0, maxLength)}…` : clean;
}

/**
 * As {@link sanitizeText}, and on one line, for text within a line of ours (a table's name, a question of a host): line
 * breaks and tabs become `↵`.
 */
export function sanitizeLine(text: string, maxLength = 500): string {
  return sanitizeText(text.replaceAll(/[\t-\r\u0085\u2028\u2029]+/g, ' ↵ ').trim(), maxLength);
}
