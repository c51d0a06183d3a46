import { SqlsyncError, sanitizeText, toSqlsyncError } from '../../errors.ts';
import { outputOf } from '../options/common-options.ts';
import { defineCommand } from '../options/command.ts';
import type { Command, Options } from '../options/command.ts';
import { OUTPUT_OPTIONS } from '../options/options.ts';
import { EXIT_OK, exitStatusOf } from '../terminal/exit.ts';
import { counted } from '../terminal/format.ts';
import type { Output } from '../terminal/output.ts';

/** The heading of the commands of the service in help. */
export const SERVICE = 'The service';

export const CONFIG_OPTION = {
  config: {
    alias: 'c',
    value: 'FILE',
    default: 'sqlsync.yaml',
    describe: 'The configuration: what is copied where, and when',
  },
} as const;

const OPTIONS = { ...CONFIG_OPTION, ...OUTPUT_OPTIONS } as const satisfies Options;

/** What each word after `config` does. */
const ACTIONS: Readonly<Record<string, (file: string, output: Output) => Promise<void>>> = {
  async check(file, output) {
    const { readConfig } = await import('../../service/config/read-config.ts');
    const { databases } = readConfig(file);
    const targets = databases.reduce((sum, each) => sum + each.targets.length, 0);
    output.json({ type: 'summary', file, databases: databases.length, targets });
    output.result(
      `${sanitizeText(file)} is right: ${counted(databases.length, 'entry', 'entries')} with ${counted(targets, 'target')}`,
    );
  },
  async schema(_file, output) {
    const { jsonSchema } = await import('../../service/config/schema.ts');
    output.json({ type: 'summary', schema: jsonSchema() });
    output.result(JSON.stringify(jsonSchema(), undefined, 2));
  },
  async example(_file, output) {
    const { EXAMPLE } = await import('../../service/config/example.ts');
    output.json({ type: 'summary', example: EXAMPLE });
    output.result(EXAMPLE.trimEnd());
  },
};

/** `sqlsync config check|schema|example`; returns the exit status. */
export const command: Command = defineCommand({
  name: 'config',
  usage: '<action>',
  describe: 'Check the configuration of the service, or print its JSON Schema or an example',
  example: 'sqlsync config check -c /etc/sqlsync.yaml',
  summary: '`file`, `databases` and `targets` (how many) of `check`; `schema`; `example`',
  operands: { action: 'check, schema or example' },
  options: OPTIONS,
  group: SERVICE,
  async run(args) {
    const output = outputOf(args);
    try {
      const action = Object.hasOwn(ACTIONS, args.action) ? ACTIONS[args.action] : undefined;
      if (action === undefined)
        throw new SqlsyncError(
          'USAGE',
          `"${sanitizeText(args.action, 80)}" is not one of ${Object.keys(ACTIONS).join(', ')}`,
          { hint: 'Write sqlsync config check -c FILE.' },
        );
      await action(args.config, output);
      return EXIT_OK;
    } catch (error) {
      const failure = toSqlsyncError(error);
      output.error(failure);
      return exitStatusOf(failure.code);
    }
  },
});
