import { buildBinding } from '../../sqlite/build-binding.ts';
import { defineCommand } from '../options/command.ts';
import type { Command } from '../options/command.ts';
import { EXIT_OK } from '../terminal/exit.ts';

export const command: Command = defineCommand({
  name: 'build-binding',
  usage: '',
  describe: 'Compile the native binding where the package has none for this platform',
  example: 'sqlsync build-binding',
  operands: {},
  options: {},
  async run() {
    await buildBinding();
    return EXIT_OK;
  },
});
