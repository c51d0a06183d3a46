import { SqlsyncError, sanitizeText } from '../../errors.ts';
import { hintAtDatabase, defineCommand } from '../command.ts';
import type { Command } from '../command.ts';
import { completionScript } from '../completion-script.ts';
import { EXIT_OK } from '../exit.ts';

export const command: Command = defineCommand({
  name: 'completion',
  usage: '[shell]',
  describe: 'Print a script for shell completion',
  example: 'sqlsync completion bash',
  operands: { shell: 'bash or zsh; without it, that of SHELL' },
  options: {},
  group: 'This program',
  run({ shell }) {
    if (shell !== undefined && shell !== 'bash' && shell !== 'zsh') {
      const failure = new SqlsyncError('USAGE', `there is no completion for ${sanitizeText(shell, 100)}`, {
        hint: 'Give bash or zsh.',
      });
      throw hintAtDatabase('completion', failure);
    }
    process.stdout.write(`${completionScript(shell)}\n`);
    return Promise.resolve(EXIT_OK);
  },
});
