/** What the hooks of the service and the trial wrote, one after another. */
interface Turn {
  readonly what: string;
  readonly atMs: number;
  readonly place: string;
  readonly origin: string;
}

/** The hooks that write a line for each begin and end of a copy to this file; the trial adds its own. */
export function hooksInto(file: string): string {
  const line = (what: string): string =>
    JSON.stringify(`echo "${what}|$(date +%s%3N)|$SQLSYNC_TARGET|$SQLSYNC_ORIGIN" >> '${file}'`);
  return `hooks: { before: ${line('begin')}, after: ${line('after')}, failure: ${line('failure')} }`;
}

/** A line of the trial: `killed` ends all copies, `removed` those of a database. */
export function turnLine(what: 'killed' | 'removed', origin = ''): string {
  return `${what}|${Date.now()}||${origin}\n`;
}

/**
 * Finds copies of one target that overlapped, and copies that were made twice within half of their interval. A copy's
 * hook `failure` runs beside the next copies, so its end may be written after their begin.
 */
export function wrongTurns(text: string, intervalMs: (place: string) => number): string[] {
  const wrong: string[] = [];
  const open = new Map<string, Turn>();
  const met = new Map<string, Turn>();
  const done = new Map<string, number>();
  for (const turn of text.split('\n').filter(Boolean).map(turnOf)) {
    const { what, atMs, place, origin } = turn;
    const key = `${place} ${origin}`;
    if (what === 'begin') {
      for (const [other, earlier] of open) if (earlier.place === place) met.set(other, turn);
      const agoMs = atMs - (done.get(key) ?? -Infinity);
      if (agoMs < intervalMs(place) / 2) wrong.push(`${key}: made twice, ${agoMs} ms apart`);
      open.set(key, turn);
      if (!met.has(key)) done.set(key, atMs);
      continue;
    }
    if (what === 'after' && met.has(key)) wrong.push(`${key}: ${met.get(key)?.origin} began before its end`);
    const ended = (other: string): boolean =>
      what === 'killed' || other === key || (what === 'removed' && other.endsWith(` ${origin}`));
    for (const other of [...open.keys()].filter(ended)) {
      open.delete(other);
      met.delete(other);
    }
    // What failed or was cut off may be made again at once.
    if (what !== 'after') for (const other of [...done.keys()].filter(ended)) done.delete(other);
  }
  return wrong;
}

function turnOf(line: string): Turn {
  const [what = '', atMs, place = '', origin = ''] = line.split('|');
  return { what, atMs: Number(atMs), place, origin };
}
