import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, resolve } from 'node:path';
import type { StoreCallOptions, StoreSnapshot } from '../../backup/types.ts';
import { SqlsyncError, sanitizeText } from '../../errors.ts';
import { isOnAnotherHost } from '../../backup/backends/elsewhere.ts';
import { reportPair } from '../../report/collect/pair-report.ts';
import { reportDatabase } from '../../report/collect/store-report.ts';
import type { ReportedDatabase } from '../../report/collect/store-report.ts';
import { BEGINNING, renderReport } from '../../report/document.ts';
import type { Report } from '../../report/report.ts';
import { withMaxTime } from '../../sync/runs/max-time.ts';
import { remoteOptionsOf } from '../options/common-options.ts';
import { defineCommand } from '../options/command.ts';
import type { ArgumentsOf, Command, Options } from '../options/command.ts';
import { CONNECTION_OPTIONS, OUTPUT_OPTIONS } from '../options/options.ts';
import { parseSize, parseWholeNumber } from '../options/quantities.ts';
import {
  DATABASE_OPTIONS,
  choosePair,
  chooseSnapshot,
  filterSnapshots,
  parseSnapshotReference,
  isSnapshotOnAnotherHost,
} from '../store/snapshot-choice.ts';
import { ACCESS_OPTIONS, storeAccessOf } from '../store/store-password.ts';
import {
  AT_OPTION,
  CACHE_OPTION,
  STORES,
  atTime,
  isStore,
  openStoreAt,
  runStoreCommand,
} from '../store/store-command.ts';
import { EXIT_OK } from '../terminal/exit.ts';
import { counted } from '../terminal/format.ts';
import type { Output } from '../terminal/output.ts';

const OPTIONS = {
  output: {
    alias: 'o',
    value: 'FILE',
    describe: 'The HTML file to write; an earlier report there is replaced',
    more: 'Not needed with `--json`.',
  },
  measure: {
    value: 'N',
    default: '6',
    describe: 'How many snapshots of each database are restored to a temporary file, to measure their tables',
    more: 'The two that the map compares come first, the rest is spread over the history; 0 is for none.',
  },
  'max-size': { value: 'SIZE', describe: 'Measure no tables of databases that are larger (200M, 1G)' },
  ...DATABASE_OPTIONS,
  ...AT_OPTION,
  ...CACHE_OPTION,
  ...CONNECTION_OPTIONS,
  ...ACCESS_OPTIONS,
  ...OUTPUT_OPTIONS,
} as const satisfies Options;

type Arguments = ArgumentsOf<'<a> [b]', typeof OPTIONS>;

/** `sqlsync report STORE|A B -o FILE`; returns the exit status, which is also 0 if they differ. */
export const command: Command = defineCommand({
  name: 'report',
  usage: '<a> [b]',
  describe: 'Write a page of HTML: snapshots, growth by table, and a map of the pages that changed',
  example: 'sqlsync report /srv/store -o report.html',
  summary:
    '`output`, `title`, `madeAtMs`, `databases` (`name`, `host`, `moments`, `omitted`, `growth`, `map`, `remarks`)',
  operands: {
    a: 'STORE, STORE#ID, or a database: path or [user@]host:path',
    b: 'STORE#ID or #ID to compare with, or another database',
  },
  options: OPTIONS,
  group: STORES,
  run: (args) =>
    runStoreCommand('report', args, async (output, options) => {
      refuseOthers(args);
      const databases = isOfStore(args)
        ? await ofStore(args, output, options)
        : [await ofPair(args, output, options.signal)];
      const title = args.b === undefined || isOfStore(args) ? args.a : (databases[0]?.name ?? '');
      const report: Report = { title, madeAtMs: Date.now(), databases };
      if (args.output !== undefined) writeReport(args.output, renderReport(report));
      output.json({ type: 'summary', output: args.output, ...report });
      output.result(`${args.output} shows ${counted(databases.length, 'database')}`);
      return EXIT_OK;
    }),
});

/** Before anything is read. Throws SqlsyncError USAGE, and the system's errors for a folder that takes no file. */
function refuseOthers({ a, b, output, json }: Arguments): void {
  if (output === undefined && !json)
    throw new SqlsyncError('USAGE', 'report: expected a file to write', { hint: 'Add -o report.html.' });
  if (b === undefined && !isOfStore({ a, b }))
    throw new SqlsyncError(
      'USAGE',
      `${sanitizeText(a, 400)} is no store; expected a store, or two databases`,
      {
        hint: 'Write `sqlsync report STORE -o FILE`, or `sqlsync report A B -o FILE`.',
      },
    );
  if (output === undefined) return;
  // A report takes long to make.
  accessSync(dirname(resolve(output)), constants.W_OK);
  refuseForeign(output);
}

/** A snapshot in a store, or a store: on another host only by itself. A file with a # in its name is that file. */
function isOfStore({ a, b }: Pick<Arguments, 'a' | 'b'>): boolean {
  if (isWholeStore(a, b) || isSnapshotOnAnotherHost(a)) return true;
  return !existsSync(a) && isStore(parseSnapshotReference(a).store);
}

function isWholeStore(a: string, b: string | undefined): boolean {
  const isAlone = b === undefined && isOnAnotherHost(a) && !isSnapshotOnAnotherHost(a);
  return isStore(a) || isAlone;
}

async function ofPair(
  args: Arguments,
  output: Output,
  interruption: AbortSignal,
): Promise<Report['databases'][0]> {
  const { maxTimeMs, ...options } = remoteOptionsOf(args);
  return withMaxTime(maxTimeMs, interruption, (signal) =>
    reportPair({
      a: args.a,
      b: args.b ?? '',
      ...options,
      maxTimeMs,
      signal,
      onWarning: (warning, kind) => output.warning(warning, kind),
      onNote: (note) => output.note(note),
    }),
  );
}

async function ofStore(
  args: Arguments,
  output: Output,
  options: StoreCallOptions & { readonly signal: AbortSignal },
): Promise<Report['databases']> {
  const measured = parseWholeNumber('--measure', args.measure, {
    least: 0,
    most: 1000,
    hint: 'Write --measure 6.',
  });
  const maxBytes = args.maxSize === undefined ? Infinity : parseSize('--max-size', args.maxSize);
  const place = atTime(parseSnapshotReference(args.a).store, args.at);
  const store = await openStoreAt(place, storeAccessOf(args, place, output, options.signal));
  const all = await store.snapshots({ onWarning: (warning) => output.warning(warning) });
  const databases = [];
  for (const each of chooseDatabases(all, args, (warning) => output.warning(warning)))
    databases.push(await reportDatabase(store, place, each, { ...options, measured, maxBytes }));
  return databases;
}

/** All databases that the filter lets through; that of a snapshot which is named. Throws SqlsyncError. */
function chooseDatabases(
  all: readonly StoreSnapshot[],
  args: Arguments,
  onWarning: (warning: string) => void,
): ReportedDatabase[] {
  const nameOf = ({ host, path }: StoreSnapshot): string => JSON.stringify([host, path]);
  const byName = Map.groupBy(all, nameOf);
  const historyOf = (snapshot: StoreSnapshot): StoreSnapshot[] => byName.get(nameOf(snapshot)) ?? [];
  const first = parseSnapshotReference(args.a);
  if (args.b !== undefined) {
    const second = parseSnapshotReference(args.b);
    if (second.store !== '' && resolve(first.store) !== resolve(second.store))
      throw new SqlsyncError('USAGE', `${first.store} and ${second.store} are two stores; expected one`, {
        hint: 'Write `sqlsync report STORE#ID #ID -o FILE`.',
      });
    const pair = choosePair(all, [first.which, second.which], args, onWarning);
    return [{ snapshots: historyOf(pair[1]), pair }];
  }
  if (isWholeStore(args.a, args.b))
    return [...new Set(filterSnapshots(all, args).map(nameOf))].map((name) => {
      const snapshots = byName.get(name) ?? [];
      return { snapshots, pair: pairUntil(snapshots, snapshots.length - 1) };
    });
  const chosen = chooseSnapshot(all, first.which, args, onWarning);
  const snapshots = historyOf(chosen);
  return [{ snapshots, pair: pairUntil(snapshots, snapshots.indexOf(chosen)) }];
}

/** A snapshot, and the one before it. */
function pairUntil(snapshots: readonly StoreSnapshot[], at: number): ReportedDatabase['pair'] {
  const [older, newer] = [snapshots[at - 1], snapshots[at]];
  return older === undefined || newer === undefined ? undefined : [older, newer];
}

/** Replaces only what is a report: a slip of the hand must not cost a database. Throws SqlsyncError USAGE. */
function refuseForeign(path: string): void {
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats === undefined) return;
  if (stats.isFile()) {
    const start = Buffer.alloc(BEGINNING.length);
    const descriptor = openSync(path, 'r');
    try {
      readSync(descriptor, start, 0, start.length, 0);
    } finally {
      closeSync(descriptor);
    }
    if (start.toString('latin1') === BEGINNING) return;
  }
  throw new SqlsyncError('USAGE', `${sanitizeText(path, 400)} is there, and is no report of sqlsync`, {
    hint: 'Name another file after -o, or move that one away.',
  });
}

/** The file is the old report or the new one, whole. Throws the system's errors, and SqlsyncError USAGE. */
function writeReport(path: string, html: string): void {
  const temporary = `${path}.${process.pid}.new`;
  try {
    writeFileSync(temporary, html, { flag: 'wx', mode: 0o600 });
    refuseForeign(path);
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}
