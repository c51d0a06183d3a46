import type { Facts, LockFacts, LockName, ProcessFacts } from '../facts.ts';
import type { Severity, Finding } from '../finding.ts';

/** The beginning of a command line names the program, and its end what it runs. */
const COMMAND_HEAD = 40;
const COMMAND_TAIL = 60;

/** Names a process: PID 4711 (`node worker.js`, writes "import", user app (uid 1000), container 0123456789ab). */
export function processInWords(facts: Facts, pid: number): string {
  const known = facts.processes.find((process) => process.pid === pid);
  const command = known?.command?.replaceAll(/\s+/g, ' ').trim();
  const parts = [
    ...(command === undefined ? [] : [`\`${cut(command)}\``]),
    ...labelsInWords(facts, pid),
    ...(known?.user === undefined ? [] : [`user ${known.user}`]),
    ...(known?.container === undefined ? [] : [`container ${known.container}`]),
  ];
  return parts.length === 0 ? `PID ${pid}` : `PID ${pid} (${parts.join(', ')})`;
}

/** The labels of what a process does through its pools, as far as it is about the writer. */
function labelsInWords(facts: Facts, pid: number): string[] {
  const pool = facts.pools.find((each) => each.pid === pid);
  if (pool?.writer !== undefined) return [`writes "${pool.writer.label}"`];
  const [first] = pool?.waiting ?? [];
  return first === undefined ? [] : [`waits with "${first.label}"`];
}

/** Names several processes, the first few in full. */
export function processesInWords(facts: Facts, pids: readonly number[], limit = 5): string {
  const shown = pids.slice(0, limit).map((pid) => processInWords(facts, pid));
  const hidden = pids.length - shown.length;
  return `${shown.join(', ')}${hidden > 0 ? ` and ${hidden} more` : ''}`;
}

/** Leaves out the middle of a long command line. */
export function cut(text: string, head: number = COMMAND_HEAD, tail: number = COMMAND_TAIL): string {
  return text.length <= head + tail ? text : `${text.slice(0, head)} … ${text.slice(-tail)}`;
}

/** The processes that hold one of these locks; `throughout` means during all looks. */
export function holdersOf(facts: Facts, names: readonly LockName[], throughout = false): number[] {
  return [...new Set(locksNamed(facts, names, throughout).map(({ pid }) => pid))];
}

export function locksNamed(facts: Facts, names: readonly LockName[], throughout = false): LockFacts[] {
  return facts.locks.filter(
    ({ name, isHeldThroughout }) => names.includes(name) && (!throughout || isHeldThroughout),
  );
}

export function processOf(facts: Facts, pid: number): ProcessFacts | undefined {
  return facts.processes.find((process) => process.pid === pid);
}

/** A path as a word of a POSIX shell that no program takes for an option. */
export function shellWord(path: string): string {
  if (path.startsWith('-')) return shellWord(`./${path}`);
  return /^[\w./@%+:,-]+$/.test(path) ? path : `'${path.replaceAll("'", String.raw`'\''`)}'`;
}

/** False where WAL mode would put the database at risk. */
export function mayUseWal({ database }: Facts): boolean {
  return !database.isNetwork && !database.isMountedAlone && database.hardLinks <= 1;
}

/** A line for the sqlite3 shell. */
export function sqliteLine(facts: Facts, sql: string): string {
  return `sqlite3 ${shellWord(facts.path)} "${sql}"`;
}

export function finding(
  severity: Severity,
  id: string,
  title: string,
  texts: { readonly meaning: string; readonly mend: string },
): Finding {
  return { id, severity, title, ...texts };
}
