import type { Argv } from 'yargs';
import { SqlsyncError, toSqlsyncError } from '../errors.ts';
import { checkDecoding } from '../files/path-names.ts';
import { isLibraryChild } from '../library/messages.ts';
import { VERSION } from '../sync/program.ts';
import { checkCommandLine, kebabCase, readCommandLine } from './command-line.ts';
import { COMPLETION_FLAG, completionScript, completions } from './completion.ts';
import { EXIT_OK, exitStatusOf } from './exit.ts';
import { allOptions } from './known-options.ts';
import type { AgentArguments } from './commands/agent.ts';
import { AGENT_OPTIONS, COMMON_OPTIONS, JOB_OPTIONS, SYNC_OPTIONS, VERIFY_OPTIONS } from './options.ts';
import { Output, surviveClosedStreams } from './output.ts';
import { addStoreCommands } from './store-commands.ts';

const DESCRIPTION = `sqlsync ORIGIN REPLICA

Makes REPLICA an exact copy of ORIGIN, a live SQLite database, sending only what differs.
Either may be a path or [user@]host:path. Writers of ORIGIN do not wait.`;

const EXAMPLES: [string, string][] = [
  ['$0 app.db copy.db', 'a local copy; run again, it sends what changed'],
  ['$0 deploy@db1:/srv/app.db app.db', 'pull over SSH'],
  ['$0 app.db backup@vault:app.db', 'push over SSH'],
  ['$0 -n app.db copy.db', 'only say what would change'],
  ['$0 verify app.db deploy@db1:/srv/app.db', 'compare, write nothing'],
  ['$0 backup app.db /srv/store', 'a snapshot more in a backup store'],
  ['$0 restore /srv/store#latest app.db', 'the newest snapshot of it'],
];

const EPILOGUE = `A name that is a command is one where it stands first: a database called backup is ./backup.
Exit statuses and everything else: the README of sqlsync.`;

/** Variables of the environment that are or hold paths. */
const PATH_VARIABLES = ['HOME', 'XDG_CACHE_HOME', 'TMPDIR', 'SQLSYNC_RSH', 'SSH_AUTH_SOCK'];

/** Runs the command line `argv` (without the program's name) and returns the exit status. */
export async function main(argv: readonly string[]): Promise<number> {
  // A far agent is started for every sync, mostly without options: it then need not load what parses them.
  if (argv.length === 1 && argv[0] === 'agent') return runAgent();
  surviveClosedStreams();
  if (isLibraryChild(argv)) return runLibraryChild();
  if (argv[0] === COMPLETION_FLAG) return printCompletions(argv.slice(1));
  let status = EXIT_OK;
  // Before the command line is understood, so that its own errors come in the form that was asked for.
  const output = new Output({
    json: argv.includes('--json'),
    verbosity: argv.includes('-q') || argv.includes('--quiet') ? 'quiet' : 'normal',
  });
  const { default: yargs } = await import('yargs');
  try {
    checkDecoding(argv, PATH_VARIABLES);
    const words = withPlainOperands(checked(argv));
    const { command } = readCommandLine(argv);
    const parser = yargs(words).scriptName('sqlsync');
    await describe(parser, command, (code) => (status = code)).parseAsync();
    return status;
  } catch (error) {
    const failure = toSqlsyncError(error);
    output.error(failure);
    if (argv[0] === 'agent') await (await import('./commands/agent.ts')).tellPeer(failure);
    return exitStatusOf(failure.code);
  }
}

function describe(parser: Argv, command: string, setStatus: (status: number) => void): Argv {
  return (
    addStoreCommands(addCommands(parser.usage(DESCRIPTION), setStatus), setStatus)
      .example(EXAMPLES)
      .epilogue(EPILOGUE)
      .version(VERSION)
      // Not the user's: what yargs says stands beside what we say.
      .locale('en')
      .alias('help', 'h')
      .parserConfiguration({ 'parse-positional-numbers': false })
      .middleware(lastOfEach, true)
      .strict()
      .exitProcess(false)
      .wrap(Math.min(100, process.stdout.columns ?? 100))
      .fail((message, error) => {
        // YError is how yargs itself complains; anything else comes from a command.
        if (error instanceof Error && error.name !== 'YError') throw error;
        const help = command === 'sync' ? 'sqlsync --help' : `sqlsync ${command} --help`;
        throw new SqlsyncError('USAGE', message || error?.message || '', { hint: `See \`${help}\`.` });
      })
  );
}

function addCommands(parser: Argv, setStatus: (status: number) => void): Argv {
  return parser
    .command(
      '$0 <origin> <replica>',
      'Copy ORIGIN to REPLICA',
      (command) =>
        locations(command, 'origin', 'replica')
          .options(SYNC_OPTIONS)
          .options(JOB_OPTIONS)
          .options(COMMON_OPTIONS),
      async (args) => {
        const { runSyncCommand } = await import('./commands/sync.ts');
        setStatus(await runSyncCommand(args));
      },
    )
    .command(
      'verify <a> <b>',
      'Compare two databases or snapshots (STORE#ID) and say which pages and tables differ; exits 0 when they are the same, 1 when not',
      (command) =>
        locations(command, 'a', 'b')
          .options(VERIFY_OPTIONS)
          .option('ping', JOB_OPTIONS.ping)
          .options(COMMON_OPTIONS),
      async (args) => {
        const { runVerifyCommand } = await import('./commands/verify.ts');
        setStatus(await runVerifyCommand(args));
      },
    )
    .command(
      'setup <host> [path]',
      'Check that a host can be the other side, and how fast the link is; changes nothing there',
      (command) =>
        command
          .positional('host', {
            type: 'string',
            demandOption: true,
            describe: '[user@]host, or [user@]host:path',
          })
          .positional('path', { type: 'string', describe: 'Database or folder there that a sync would use' })
          .options(COMMON_OPTIONS),
      async (args) => {
        const { runSetupCommand } = await import('./commands/setup.ts');
        setStatus(await runSetupCommand(args));
      },
    )
    .command('agent', false, AGENT_OPTIONS, async (args) => setStatus(await runAgent(args)))
    .command('build-binding', false, {}, async () => {
      const { runBuildBindingCommand } = await import('./commands/build-binding.ts');
      setStatus(await runBuildBindingCommand());
    })
    .command(
      'completion [shell]',
      'Print a script for shell completion',
      (command) =>
        command.positional('shell', { choices: ['bash', 'zsh'], describe: 'Default: that of SHELL' }),
      ({ shell }) => void process.stdout.write(`${completionScript(shell)}\n`),
    );
}

/**
 * An option that is given twice has its last value, unless it takes several. (yargs' own setting for that keeps only
 * the last also of those.)
 */
function lastOfEach(args: Record<string, unknown>): void {
  const known = allOptions();
  const byAlias = new Map(Object.entries(known).map(([name, { alias }]) => [alias, name]));
  for (const [key, value] of Object.entries(args)) {
    const option = known[byAlias.get(key) ?? kebabCase(key)];
    if (Array.isArray(value) && option !== undefined && option.array !== true) args[key] = value.at(-1);
  }
}

function printCompletions(words: readonly string[]): number {
  for (const word of completions(words)) process.stdout.write(`${word}\n`);
  return EXIT_OK;
}

/**
 * The command line with its command first: yargs does not know yet which options take a value when it looks for it.
 * Throws SqlsyncError USAGE.
 */
function checked(argv: readonly string[]): string[] {
  const line = readCommandLine(argv);
  checkCommandLine(line);
  const { commandAt } = line;
  return commandAt === -1
    ? [...argv]
    : [line.command, ...argv.slice(0, commandAt), ...argv.slice(commandAt + 1)];
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

async function runAgent(args: AgentArguments = {}): Promise<number> {
  const { runAgentCommand } = await import('./commands/agent.ts');
  return runAgentCommand(args);
}

async function runLibraryChild(): Promise<number> {
  const { runChild } = await import('../library/child.ts');
  const failure = await runChild();
  return failure === undefined ? EXIT_OK : exitStatusOf(failure.code);
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
