import { closeConnections } from '../backup/backends/remote/open-connections.ts';
import { isLibraryChild } from '../library/messages.ts';
import { EXIT_OK, exitStatusOf } from './terminal/exit.ts';

/** Runs the command line `argv` (without the program's name) and returns the exit status. */
export async function main(argv: readonly string[]): Promise<number> {
  // A far agent is started for every sync, mostly without options: it then need not load the parser of options.
  if (argv.length === 1 && argv[0] === 'agent') {
    const { runAgentCommand } = await import('./commands/agent.ts');
    return runAgentCommand({});
  }
  if (isLibraryChild(argv)) return runLibraryChild();
  const { runCommandLine } = await import('./run-command-line.ts');
  return runCommandLine(argv);
}

async function runLibraryChild(): Promise<number> {
  const { surviveClosedStreams } = await import('./terminal/output.ts');
  surviveClosedStreams();
  const { runChild } = await import('../library/child.ts');
  const failure = await runChild();
  closeConnections();
  return failure === undefined ? EXIT_OK : exitStatusOf(failure.code);
}
