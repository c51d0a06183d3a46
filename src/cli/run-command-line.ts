import { systemErrorCode, toSqlsyncError } from '../errors.ts';
import { closeConnections } from '../backup/backends/remote/open-connections.ts';
import { checkDecoding } from '../files/path-names.ts';
import { VERSION } from '../sync/program.ts';
import { argumentsOf } from './arguments.ts';
import { DEFAULT_COMMAND, isCommand, loadCommand, loadCommands } from './command-files.ts';
import { readCommandLine } from './command-line.ts';
import { COMPLETION_FLAG } from './commands/completion.ts';
import { EXIT_OK, exitStatusOf } from './terminal/exit.ts';
import { Output, surviveClosedStreams } from './terminal/output.ts';

/** The width if the output is not a terminal. */
const DEFAULT_COLUMNS = 80;

/** Environment variables that are or contain paths. */
const PATH_VARIABLES = ['HOME', 'XDG_CACHE_HOME', 'TMPDIR', 'SQLSYNC_RSH', 'SSH_AUTH_SOCK'];

/** Runs the command line, and prints its errors; returns the exit status. */
export async function runCommandLine(argv: readonly string[]): Promise<number> {
  surviveClosedStreams();
  // Made before the command line is parsed, so that its own errors come in the requested form.
  const output = new Output({
    json: argv.includes('--json'),
    verbosity: argv.includes('-q') || argv.includes('--quiet') ? 'quiet' : 'normal',
  });
  try {
    return await run(argv);
  } catch (error) {
    // bin/ reports a missing package.
    if (systemErrorCode(error) === 'ERR_MODULE_NOT_FOUND') throw error;
    const failure = toSqlsyncError(error);
    output.error(failure);
    if (argv[0] === 'agent') await (await import('./commands/agent.ts')).tellPeer(failure);
    return exitStatusOf(failure.code);
  } finally {
    closeConnections();
  }
}

async function run(argv: readonly string[]): Promise<number> {
  if (argv[0] === COMPLETION_FLAG) return printCompletions(argv.slice(1));
  if (argv.length === 0) {
    const { SHORT_HELP } = await import('./help.ts');
    process.stderr.write(`${SHORT_HELP}\n`);
    return exitStatusOf('USAGE');
  }
  if (argv.length === 1 && ['--version', '-V'].includes(argv[0] as string)) return printVersion();
  const [first, topic] = argv;
  if (first === 'help' && argv.length <= 2 && (topic === undefined || isCommand(topic)))
    return printHelp(topic);
  checkDecoding(argv, PATH_VARIABLES);
  // Both wait for files. yargs comes first, so that a clone without its packages fails on that.
  const [, line] = await Promise.all([import('yargs/helpers'), readCommandLine(argv)]);
  const { given } = line.words;
  if (given.has('help')) return printHelp(line.isNamed ? line.command.name : undefined);
  if (given.has('version')) return printVersion();
  return line.command.run((await argumentsOf(line)) as never);
}

function printVersion(): number {
  process.stdout.write(`${VERSION}\n`);
  return EXIT_OK;
}

/** Help for one command, or for all. */
async function printHelp(name: string | undefined): Promise<number> {
  const { commandHelp, generalHelp } = await import('./help.ts');
  const columns = process.stdout.columns || DEFAULT_COLUMNS;
  const text =
    name === undefined
      ? generalHelp(await loadCommands(), await loadCommand(DEFAULT_COMMAND), columns)
      : commandHelp(await loadCommand(name), columns);
  process.stdout.write(`${text}\n`);
  return EXIT_OK;
}

async function printCompletions(words: readonly string[]): Promise<number> {
  const { completions } = await import('./completion.ts');
  for (const word of await completions(words)) process.stdout.write(`${word}\n`);
  return EXIT_OK;
}
