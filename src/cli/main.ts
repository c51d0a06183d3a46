import type { Argv } from 'yargs';
import { SqlsyncError, toSqlsyncError } from '../errors.ts';
import { VERSION } from '../sync/program.ts';
import { EXIT_OK, exitStatusOf } from './exit.ts';
import { Output } from './output.ts';

const DESCRIPTION = `sqlsync ORIGIN REPLICA

Makes REPLICA an exact copy of ORIGIN, a live SQLite database, sending only what differs.
Either may be a path or [user@]host:path. Writers of ORIGIN do not wait.`;

const EXAMPLES: [string, string][] = [
  ['$0 app.db copy.db', 'a local copy; run again, it sends what changed'],
  ['$0 deploy@db1:/srv/app.db app.db', 'pull over SSH'],
  ['$0 app.db backup@vault:app.db', 'push over SSH'],
  ['$0 -n app.db copy.db', 'only say what would change'],
  ['$0 verify app.db deploy@db1:/srv/app.db', 'compare, write nothing'],
];

/** Runs the command line `argv` (without the program's name) and returns the exit status. */
export async function main(argv: readonly string[]): Promise<number> {
  // A far agent is started for every sync, and has no options: it need not load what parses them.
  if (argv.length === 1 && argv[0] === 'agent') return runAgent();
  let status = EXIT_OK;
  // Before the command line is understood, so that its own errors come in the form that was asked for.
  const output = new Output({
    json: argv.includes('--json'),
    verbosity: argv.includes('-q') || argv.includes('--quiet') ? 'quiet' : 'normal',
  });
  const { default: yargs } = await import('yargs');
  const parser = describe(yargs(withPlainOperands(argv)).scriptName('sqlsync'), (code) => (status = code));
  try {
    await parser.parseAsync();
    return status;
  } catch (error) {
    const failure = toSqlsyncError(error);
    output.error(failure);
    return exitStatusOf(failure.code);
  }
}

function describe(parser: Argv, setStatus: (status: number) => void): Argv {
  return parser
    .usage(DESCRIPTION)
    .command(
      '$0 <origin> <replica>',
      'Copy ORIGIN to REPLICA',
      (command) => commonOptions(syncOptions(locations(command, 'origin', 'replica'))),
      async (args) => {
        const { runSyncCommand } = await import('./commands/sync.ts');
        setStatus(await runSyncCommand(args));
      },
    )
    .command(
      'verify <a> <b>',
      'Compare two databases and say which pages and tables differ; exits 0 when they are the same, 1 when not',
      (command) => commonOptions(locations(command, 'a', 'b')),
      async (args) => {
        const { runVerifyCommand } = await import('./commands/verify.ts');
        setStatus(await runVerifyCommand(args));
      },
    )
    .command('agent', false, {}, async () => setStatus(await runAgent()))
    .command('build-binding', false, {}, async () => {
      const { runBuildBindingCommand } = await import('./commands/build-binding.ts');
      setStatus(await runBuildBindingCommand());
    })
    .command('completion', 'Print a script for shell completion', {}, () => printCompletion(parser))
    .example(EXAMPLES)
    .epilogue('Exit statuses and everything else: the README of sqlsync.')
    .version(VERSION)
    .alias('help', 'h')
    .parserConfiguration({ 'parse-positional-numbers': false, 'duplicate-arguments-array': false })
    .strict()
    .exitProcess(false)
    .wrap(Math.min(100, process.stdout.columns ?? 100))
    .fail((message, error) => {
      // YError is how yargs itself complains; anything else comes from a command.
      if (error instanceof Error && error.name !== 'YError') throw error;
      throw new SqlsyncError('USAGE', message || error?.message || '', { hint: 'See `sqlsync --help`.' });
    });
}

/** Not yargs' own `.completion()`: as nothing ends the process, it would go on to miss the arguments of a sync. */
function printCompletion(parser: Argv): void {
  parser.showCompletionScript();
}

/**
 * What follows `--` are locations, whatever they look like: yargs would not count them among the arguments of the
 * default command. A bare name is written as `./name`, so that it is neither an option nor a command.
 */
function withPlainOperands(argv: readonly string[]): string[] {
  const at = argv.indexOf('--');
  if (at === -1) return [...argv];
  const operands = argv.slice(at + 1).map((word) => (/^-|^[^/:]+$/.test(word) ? `./${word}` : word));
  return [...argv.slice(0, at), ...operands];
}

async function runAgent(): Promise<number> {
  const { runAgentCommand } = await import('./commands/agent.ts');
  return runAgentCommand();
}

function locations<A extends string, B extends string>(
  parser: Argv,
  first: A,
  second: B,
): Argv<Record<A | B, string>> {
  return parser
    .positional(first, { type: 'string', demandOption: true, describe: 'Path or [user@]host:path' })
    .positional(second, {
      type: 'string',
      demandOption: true,
      describe: 'Path or [user@]host:path',
    });
}

function syncOptions<T>(parser: Argv<T>) {
  return parser
    .option('dry-run', {
      alias: 'n',
      type: 'boolean',
      default: false,
      describe: 'Compare only; write nothing',
    })
    .option('overwrite', {
      type: 'boolean',
      default: false,
      describe: 'REPLICA may be a database that sqlsync did not make (its content is lost)',
    })
    .option('replace', {
      type: 'boolean',
      default: false,
      describe: 'Replace a REPLICA of another page size',
    })
    .option('compress', {
      choices: ['auto', 'zstd', 'none'] as const,
      default: 'auto' as const,
      describe: 'auto: all over SSH, only deltas between local files',
    })
    .option('hash', {
      choices: ['xxh64', 'sha256'] as const,
      default: 'xxh64' as const,
      describe: 'sha256 resists crafted collisions and is slower',
    })
    .option('reader', {
      choices: ['file', 'dbpage'] as const,
      default: 'file' as const,
      describe: 'How pages are read: mostly from the file itself, or all by SQLite (slower)',
    });
}

function commonOptions<T>(parser: Argv<T>) {
  return parser
    .option('port', { alias: 'p', type: 'number', describe: 'SSH port of the remote side' })
    .option('identity', {
      alias: 'i',
      type: 'string',
      array: true,
      nargs: 1,
      describe: 'Private key file for SSH',
    })
    .option('known-hosts', {
      type: 'string',
      array: true,
      nargs: 1,
      describe: 'Files of trusted host keys (default: ~/.ssh/known_hosts and the system’s)',
    })
    .option('remote-exe', {
      type: 'string',
      default: 'sqlsync',
      describe: 'Name of sqlsync on the remote side',
    })
    .option('busy-timeout', {
      type: 'number',
      default: 10,
      describe: 'Seconds to wait for locks of other programs',
    })
    .option('timeout', {
      type: 'number',
      default: 300,
      describe: 'Seconds of silence after which the other side counts as lost; 0 is for ever',
    })
    .option('json', { type: 'boolean', default: false, describe: 'One JSON object a line on stdout' })
    .option('verbose', { alias: 'v', type: 'boolean', default: false, describe: 'Say more' })
    .option('quiet', { alias: 'q', type: 'boolean', default: false, describe: 'Say nothing but errors' });
}
