import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import { exitStatusOf } from '../../src/cli/terminal/exit.ts';
import { COMPLETION_SCRIPTS } from '../../src/cli/commands/completion.ts';
import { argumentsOf } from '../../src/cli/arguments.ts';
import { COMMAND_NAMES, loadCommands } from '../../src/cli/command-files.ts';
import { readCommandLine } from '../../src/cli/command-line.ts';
import { commandHelp } from '../../src/cli/help.ts';
import { ERROR_CODES } from '../../src/errors.ts';
import type { ErrorCode } from '../../src/errors.ts';
import { PROGRAM, folderState, jsonLines, sqlsync } from './command.ts';
import { MANUAL, withReference } from './reference.ts';
import { tempDir } from '../support/compare.ts';
import { smallDatabase } from '../pages/databases.ts';

const ROOT = dirname(dirname(import.meta.dirname));

describe('sqlsync --help', () => {
  test('--help shows the usage, every option and examples on stdout', async () => {
    const { status, stdout, stderr } = await sqlsync(['--help']);
    assert.equal(status, 0);
    assert.equal(stderr, '');
    assert.match(stdout, /^sqlsync ORIGIN REPLICA$/m);
    assert.match(stdout, /Examples:\n {2}sqlsync app\.db copy\.db/);
    const options =
      'dry-run overwrite replace compress hash port identity known-hosts accept-new-host-key jump ssh-config rsh remote-exe busy-timeout timeout connect-timeout max-time bwlimit lock-wait ping metrics-file json verbose quiet help version';
    for (const name of options.split(' ')) assert.match(stdout, new RegExp(`--${name}\\b`), name);
    for (const hidden of ['agent', 'build-binding'])
      assert.doesNotMatch(stdout, new RegExp(`sqlsync ${hidden}`));
    for (const line of stdout.split('\n').filter((each) => each !== MANUAL))
      assert.ok(line.length <= 80, line);
    const order = [
      'Examples',
      'Databases',
      'Backups with history',
      'Copying',
      'Jobs',
      'Connection',
      'Output',
    ];
    const places = order.map((heading) => stdout.indexOf(`\n${heading}:\n`));
    assert.deepEqual(
      places.toSorted((a, b) => a - b),
      places,
      'its order',
    );
    assert.ok(places.every((place) => place !== -1));
  });

  test('--help shows every option of every command, with its value', async () => {
    for (const command of await loadCommands()) {
      const help = commandHelp(command, 80);
      assert.match(help, new RegExp(`^sqlsync ${command.name}\\b`));
      for (const [name, option] of Object.entries(command.options)) {
        const { alias, value, choices } = option;
        const letter = alias === undefined ? ' {4}' : `-${alias}, `;
        const taken = choices?.join('\\|') ?? value;
        assert.match(
          help,
          new RegExp(`^ {2}${letter}--${name}${taken === undefined ? '' : ` ${taken}`}( |$)`, 'm'),
          `${command.name} --${name}`,
        );
        assert.match(option.describe, /\S/);
      }
    }
  });

  test('the help without arguments is short, on stderr and with status 2', async () => {
    const { status, stdout, stderr } = await sqlsync([]);
    assert.deepEqual([status, stdout], [2, '']);
    assert.match(stderr, /^sqlsync ORIGIN REPLICA\n/);
    assert.match(stderr, /sqlsync --help/);
    assert.ok(stderr.split('\n').length < 15);
  });

  test('sqlsync help prints the help of all commands, or of one', async () => {
    for (const [words, same] of [
      [['help'], ['--help']],
      [
        ['help', 'verify'],
        ['verify', '--help'],
      ],
    ] as const) {
      const { status, stdout } = await sqlsync(words);
      assert.deepEqual([status, stdout], [0, (await sqlsync(same)).stdout]);
    }
    const { status, stderr } = await sqlsync(['help', 'copy.db']);
    assert.equal(status, 2);
    assert.match(stderr, /database named help is \.\/help/);
  });

  test('verify --help shows the options of verify', async () => {
    const { status, stdout } = await sqlsync(['verify', '-h']);
    assert.equal(status, 0);
    assert.match(stdout, /verify <a> <b>/);
    assert.doesNotMatch(stdout, /--overwrite/);
  });
});

for (const option of ['--version', '-V'])
  test(`sqlsync ${option} prints the version of the package, and nothing else`, async () => {
    const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
    assert.deepEqual(await sqlsync([option]), {
      status: 0,
      signal: null,
      stdout: `${version}\n`,
      stderr: '',
    });
  });

describe('options in any place', () => {
  test('options before a command are its own, with their values and without', async (t) => {
    const folder = tempDir(t);
    for (const name of ['a.db', 'b.db']) smallDatabase(join(folder, name), { rows: 20 });
    for (const options of [
      ['--json'],
      ['--port', '22', '--json'],
      ['-p', '22', '--json=true'],
      ['-vp22', '--json'],
    ]) {
      const { status, stdout, stderr } = await sqlsync([...options, 'verify', 'a.db', 'b.db'], {
        cwd: folder,
      });
      assert.equal(stderr, '');
      assert.ok(status === 0 || status === 1, stdout);
      assert.equal(jsonLines(stdout).at(-1)?.type, 'summary');
    }
  });

  test('options may be negated, and written in camel case', async (t) => {
    const folder = tempDir(t);
    smallDatabase(join(folder, 'a.db'), { rows: 20 });
    const { status, stdout } = await sqlsync(['a.db', 'b.db', '--no-json', '--dryRun'], { cwd: folder });
    assert.equal(status, 0);
    assert.match(stdout, /nothing was written/);
  });
});

test('a short option takes its value with and without a space or =', async (t) => {
  const folder = tempDir(t);
  smallDatabase(join(folder, 'a.db'), { rows: 20 });
  for (const options of [['-Jnone'], ['-J=none'], ['-J', 'none'], ['-nessh'], ['-vF./ssh'], ['-Fno=ne']]) {
    const { status, stderr } = await sqlsync([...options, 'a.db', 'b.db'], { cwd: folder });
    assert.deepEqual([status, stderr], [0, ''], options.join(' '));
  }
  const { stderr } = await sqlsync(['-vpssh', 'a.db', 'b.db'], { cwd: folder });
  assert.match(stderr, /--port: "ssh" is not/);
});

describe('the command sync', () => {
  test('the command sync may be named', async (t) => {
    const folder = tempDir(t);
    smallDatabase(join(folder, 'a.db'), { rows: 20 });
    for (const args of [
      ['sync', 'a.db', 'b.db'],
      ['-q', 'sync', 'a.db', 'b.db'],
      ['a.db', 'sync'],
    ]) {
      const { status, stderr } = await sqlsync(args, { cwd: folder });
      assert.deepEqual([status, stderr], [0, '']);
    }
  });

  test('the command sync is not meant by a path, nor after --', async (t) => {
    const folder = tempDir(t);
    for (const name of ['sync', 'copy']) smallDatabase(join(folder, name), { rows: 20 });
    for (const args of [
      ['./sync', 'b.db'],
      ['--', 'sync', 'c.db'],
      ['./copy', 'd.db'],
      ['--', 'copy', 'e.db'],
    ]) {
      const { status, stderr } = await sqlsync(args, { cwd: folder });
      assert.deepEqual([status, stderr], [0, '']);
    }
  });

  test('an error says how to name a database that has the name of a command', async (t) => {
    const folder = tempDir(t);
    for (const [name, ...args] of [
      ['sync', 'b.db'],
      ['verify', 'b.db'],
      ['setup', 'ftp://b.db'],
      ['setup', 'b.db', 'c.db', 'd.db'],
      ['completion', 'b.db'],
      ['diff', 'b.db'],
      ['status', 'b.db'],
      ['doctor'],
    ] as const) {
      writeFileSync(join(folder, name), '');
      const { status, stderr } = await sqlsync([name, ...args], { cwd: folder });
      assert.match(stderr, new RegExp(`\\[USAGE\\]\n.*named ${name} is \\./${name}\\.`));
      assert.equal(status, 2);
    }
  });
});

describe('completion', () => {
  async function complete(...words: string[]): Promise<string[]> {
    const { status, stdout, stderr } = await sqlsync(['--get-yargs-completions', 'sqlsync', ...words]);
    assert.deepEqual([status, stderr], [0, '']);
    return stdout.split('\n').filter(Boolean);
  }

  test('completion offers the options of the command after a dash, and only those', async () => {
    const ofSync = await complete('--');
    for (const name of ['--dry-run', '--overwrite', '--compress', '--port', '--json', '--help'])
      assert.ok(ofSync.includes(name), name);
    const ofVerify = await complete('verify', 'a.db', '-');
    assert.ok(ofVerify.includes('--port'));
    assert.ok(!ofVerify.includes('--overwrite'));
    assert.deepEqual(await complete('verify', '--bus'), ['--busy-timeout']);
  });

  test('completion offers the values of an option that has few', async () => {
    assert.deepEqual(await complete('--compress', ''), ['auto', 'zstd', 'none']);
    assert.deepEqual(await complete('a.db', 'b.db', '--hash', 's'), ['sha256']);
    assert.deepEqual(await complete('--reader', '=', 'd'), ['dbpage'], 'as bash splits it');
  });

  test('completion offers a command if its first letters stand first', async () => {
    assert.deepEqual(await complete('ver'), ['verify', ':files']);
    assert.deepEqual(await complete('--json', 'co'), ['copy', 'config', 'completion', ':files']);
    assert.deepEqual(await complete('s'), ['sync', 'setup', 'snapshots', 'stats', 'status', ':files']);
    assert.deepEqual(await complete('a.db', 'v'), [':files']);
  });

  test('completion offers files in the place of an operand, and all commands beside them in the first place', async () => {
    const first = await complete('');
    for (const name of ['verify', 'setup', 'backup', 'restore', 'completion'])
      assert.ok(first.includes(name));
    assert.ok(first.includes(':files'));
    assert.ok(!first.includes('agent'));
    for (const words of [['app'], ['a.db', ''], ['verify', ''], ['--identity', ''], ['--', '-']])
      assert.deepEqual(await complete(...words), [':files'], words.join(' '));
  });

  test('completion in bash offers commands and files, and never the files that sqlsync keeps beside a database', async (t) => {
    const folder = tempDir(t);
    mkdirSync(join(folder, 'verified'));
    for (const name of ['a b.db', 'app.db', '.app.db.sqlsync', '.app.db.sqlsync-part', '.hidden'])
      writeFileSync(join(folder, name), '');
    const { stdout: script } = await sqlsync(['completion', 'bash']);
    const completed = (...words: string[]): string[] => {
      const { stdout, stderr } = spawnSync(
        'bash',
        ['--norc', '-c', COMPLETE_IN_BASH, 'bash', script, ...words],
        {
          cwd: folder,
          encoding: 'utf8',
          env: { ...process.env, NODE: process.execPath, PROGRAM },
        },
      );
      assert.equal(stderr, '');
      return stdout.split('\n').filter(Boolean).sort();
    };
    const first = completed('');
    for (const name of ['verify', 'backup', 'verified', 'app.db', 'a b.db', '.hidden'])
      assert.ok(first.includes(name), name);
    assert.deepEqual(
      first.filter((name) => name.includes('.sqlsync')),
      [],
    );
    assert.deepEqual(completed('ver'), ['verified', 'verify']);
    assert.deepEqual(completed('app.db', 'a'), ['a b.db', 'app.db']);
    assert.deepEqual(completed('app.db', './a'), ['./a b.db', './app.db']);
    assert.deepEqual(completed('app.db', '.'), ['.hidden']);
    assert.deepEqual(completed('verify', '--bus'), ['--busy-timeout']);
    assert.deepEqual(completed('--compress', 'z'), ['zstd']);
  });

  const NEEDS_FISH =
    spawnSync('fish', ['--version']).status === 0 ? false : 'NOT TESTED: there is no fish here';

  test(
    'completion in fish offers commands and files, and never the files that sqlsync keeps beside a database',
    { skip: NEEDS_FISH },
    async (t) => {
      const folder = tempDir(t);
      for (const name of ['a b.db', 'app.db', '.app.db.sqlsync', '.app.db.sqlsync-part', '.hidden'])
        writeFileSync(join(folder, name), '');
      const { stdout: script } = await sqlsync(['completion', 'fish']);
      const completed = (line: string): string[] => {
        const { stdout, stderr } = spawnSync('fish', ['--no-config', '-c', COMPLETE_IN_FISH, script, line], {
          cwd: folder,
          encoding: 'utf8',
          env: { ...process.env, NODE: process.execPath, PROGRAM },
        });
        assert.equal(stderr, '');
        const words = stdout.split('\n').filter(Boolean);
        return words.map((word) => word.replace(/\t.*/, '')).sort();
      };
      assert.deepEqual(completed('sqlsync ver'), ['verify']);
      assert.deepEqual(completed('sqlsync app.db a'), ['a b.db', 'app.db']);
      assert.deepEqual(completed('sqlsync app.db .'), ['.hidden']);
      assert.deepEqual(completed('sqlsync verify --bus'), ['--busy-timeout']);
    },
  );
});

/** What fish offers for a line whose last word the user is typing. */
const COMPLETE_IN_FISH = `
function sqlsync; "$NODE" "$PROGRAM" $argv; end
echo $argv[1] | source
complete -C $argv[2]`;

/** Runs the completion of `sqlsync WORD…` as bash does for the last word, which the user is typing. */
const COMPLETE_IN_BASH = `
sqlsync() { "$NODE" "$PROGRAM" "$@"; }
compopt() { :; } # works only while readline completes
eval "$1"
shift
COMP_WORDS=(sqlsync "$@")
COMP_CWORD=$#
COMP_LINE="\${COMP_WORDS[*]}"
_sqlsync
printf '%s\\n' "\${COMPREPLY[@]}"`;

test('sqlsync completion prints a script that a shell takes', async () => {
  const { status, stdout, stderr } = await sqlsync(['completion']);
  assert.deepEqual([status, stderr], [0, '']);
  for (const [name, script] of Object.entries({ bash: stdout, zsh: COMPLETION_SCRIPTS['zsh'] as string })) {
    assert.match(script, /_sqlsync/);
    const shell = spawnSync(name, ['-n'], { input: script, encoding: 'utf8' });
    if (shell.error === undefined) assert.deepEqual([shell.status, shell.stderr], [0, ''], name);
  }
});

describe('a command line that is wrong', () => {
  for (const [args, says] of [
    [['a.db'], /expected <origin> <replica> but got only a\.db/],
    [['verify'], /expected <a> <b> but got nothing/],
    [['verify', 'a.db'], /expected <a> <b> but got only a\.db/],
    [['sync', 'a.db'], /expected <origin> <replica> but got only a\.db/],
    ...'mount tag'
      .split(' ')
      .map((name): [string[], RegExp] => [
        [name, 'b.db'],
        new RegExp(`"${name}" is reserved for a command to come.*\\n.* is \\./${name}`),
      ]),
    [['a.db', 'b.db', '--json=perhaps'], /--json=perhaps/],
    [['completion', 'tcsh'], /no completion for tcsh/],
    [['a.db', 'b.db', 'c.db'], /c\.db/],
    [['a.db', 'b.db', '--no-such-option'], /such-option/i],
    [['a.db', 'b.db', '-Z'], /Z/],
    [['verify', 'a.db', 'b.db', '--overwrite'], /overwrite/],
    [['a.db', 'b.db', '--compress', 'lzma'], /lzma/],
    [['a.db', 'b.db', '--hash', 'md5'], /md5/],
    [['a.db', 'b.db', '--port', '0'], /--port: "0" is not a whole number from 1 to 65535/],
    [['a.db', 'b.db', '--port', '65536'], /--port: "65536" is not/],
    [['a.db', 'b.db', '--port', '22.5'], /--port: "22\.5" is not/],
    [['a.db', 'b.db', '--port', 'ssh'], /--port/],
    [['a.db', 'b.db', '--busy-timeout', 'soon'], /--busy-timeout: "soon" is not a duration from 0 to 7 days/],
    [['a.db', 'b.db', '--busy-timeout', '-1'], /--busy-timeout: "-1" is not/],
    [['a.db', 'b.db', '--timeout', '1e9'], /--timeout: "1e9" is not a duration/],
    [['a.db', 'b.db', '-q', '-v'], /exclude/],
    [['a.db', 'b.db', '--identity'], /--identity needs a value/],
    [['a.db', 'b.db', '--timeout'], /--timeout needs a value/],
    [['--timeout', '-v', 'a.db', 'b.db'], /--timeout needs a value/],
    [['a.db', 'b.db', '--retry'], /--retry needs a value/],
    [['a.db', 'b.db', '--retry', '-v'], /--retry needs a value/],
    [['--retry', '--', 'a.db', 'b.db'], /--retry needs a value/],
    [['a.db', 'b.db', '--retry='], /--retry: "" is not a whole number/],
    [['a.db', 'b.db', '--rsh'], /--rsh needs a value/],
    [['a.db', 'b.db', '-vp'], /-p needs a value/],
    [['a.db', 'b.db', '-p', '-v'], /-p needs a value/],
    [['a.db', 'b.db', '--retry', ''], /--retry: "" is not a whole number/],
    [['a.db', 'b.db', '--timeout', ''], /--timeout: "" is not a duration/],
    [['a.db', 'b.db', '--max-time', ' '], /--max-time: " " is not a duration from 1 ms/],
    [['backup', 'a.db', 'store', '--keep-last'], /--keep-last needs a value/],
    [['snapshots', 'store', '--tag', '-v'], /--tag needs a value/],
    [['agent', '--restrict'], /--restrict needs a value/],
    [['--overwite', 'a.db', 'b.db'], /unknown option --overwite.*\n.*mean --overwrite\?/],
    [['a.db', '--jsno', 'b.db'], /unknown option --jsno.*\n.*mean --json\?/],
    [['-dry-run', 'a.db', 'b.db'], /unknown option -dry-run.*\n.*mean --dry-run\?/],
    [['a.db', 'b.db', '-nZv'], /unknown option -Z /],
    [['verify', '--replace', 'a.db', 'b.db'], /unknown option --replace of `sqlsync verify`/],
    [
      ['snapshot', 'store'],
      /unknown command "snapshot".*\n.*mean `sqlsync snapshots store`\? .* is \.\/snapshot/,
    ],
    [['restore', 'store'], /got only store.*\n.*`sqlsync restore --help`/],
    [['verfy', 'a.db', 'b.db'], /unknown command "verfy".*\n.*mean `sqlsync verify a\.db b\.db`/],
    [['verify', 'a.db', 'b.db', 'c.db'], /got 3; too many: c\.db/],
    [['-', 'a.db'], /"-" cannot be a database/],
    [['backup', '-', 'store'], /"-" cannot be a database/],
    [['verify', '-', 'a.db'], /"-" cannot be a database/],
    [['a.db', 'b.db', '--identity', 'no-such-key'], /--identity: no-such-key does not exist/],
    [['a.db', 'b.db', '-i', 'no-such-key', '-i', 'a.db'], /--identity: no-such-key does not exist/],
    [['a.db', 'b.db', '--port', '22', '--port', '0'], /--port: "0" is not a whole number from 1 to 65535/],
    [['a.db', 'b.db', '--port', 'abc'], /--port: "abc" is not a whole number/],
    [['', 'b.db'], /empty/],
    [['a.db', ''], /empty/],
    [['ftp://host/a.db', 'b.db'], /scheme/],
    [['host:', 'b.db'], /no path/],
    [['user:secret@host:a.db', 'ssh://u:secret@host/b.db'], /./],
  ] as const) {
    test(`a wrong command line is a usage error, says so and does nothing: sqlsync ${args.join(' ')}`, async (t) => {
      const folder = tempDir(t);
      smallDatabase(join(folder, 'a.db'), { journalMode: 'delete', rows: 20 });
      const before = folderState(folder);
      const { status, stdout, stderr } = await sqlsync(args, { cwd: folder });
      assert.match(stderr, /\[USAGE\]/);
      assert.match(stderr, says);
      assert.doesNotMatch(stderr, /NaN/);
      assert.equal(status, 2);
      assert.equal(stdout, '');
      assert.deepEqual(folderState(folder), before);
    });
  }

  test('a usage error is a JSON error line with --json, wherever that stands', async () => {
    const { status, stdout, stderr } = await sqlsync(['a.db', '--frobnicate', '--json', 'b.db']);
    assert.equal(status, 2);
    assert.equal(stderr, '');
    const [error, ...rest] = jsonLines(stdout);
    assert.deepEqual(rest, []);
    assert.equal(error?.type, 'error');
    assert.equal(error?.['code'], 'USAGE');
    assert.equal(error?.['exitStatus'], 2);
  });
});

describe('docs/cli.md', () => {
  const manual = readFileSync(MANUAL, 'utf8');
  const section = /^## Exit statuses$([^]*?)(?=^## )/m.exec(manual)?.[1] ?? '';

  test('docs/cli.md lists every error code with its exit status, and no other, under "Exit statuses"', () => {
    const listed = new Map<string, number>();
    for (const [, status, text] of section.matchAll(/^- \*\*(\d+)\*\*: ([^]*?)(?=^- |^$)/gm)) {
      for (const [, code] of (text ?? '').matchAll(/`([A-Z_]{4,})`/g)) {
        if (code === 'TMPDIR') continue;
        assert.ok(!listed.has(code as string), `${code} is listed once`);
        listed.set(code as string, Number(status));
      }
    }
    const expected = new Map<string, number>(ERROR_CODES.map((code) => [code, exitStatusOf(code)]));
    assert.deepEqual(Object.fromEntries(listed), Object.fromEntries(expected));
  });

  test('docs/cli.md explains the statuses that are no error’s: 0 and 1', () => {
    for (const status of [0, 1]) assert.match(section, new RegExp(`^- \\*\\*${status}\\*\\*: \\S`, 'm'));
  });

  test('docs/cli.md is as `npm run docs:cli` writes it', async () => {
    assert.equal(withReference(manual, await loadCommands(COMMAND_NAMES)), manual);
  });

  test('docs/cli.md and --help name every option and operand of every command', async () => {
    const commands = await loadCommands(COMMAND_NAMES);
    assert.ok(commands.length >= 18);
    for (const { name, operands, options } of commands) {
      const ofCommand = new RegExp(`^### ${name}$([^]*?)(?=^##+ )`, 'm').exec(manual)?.[1] ?? '';
      const { status, stdout } = await sqlsync([name, '--help']);
      assert.equal(status, 0);
      for (const option of [...Object.keys(options), 'help', 'version']) {
        const written = new RegExp(`--${option}(?![\\w-])`);
        assert.match(ofCommand, written, `${name} in docs/cli.md`);
        assert.match(
          manual,
          new RegExp(`^- \`(-\\w, )?--${option}( [^\`]+)?\`: \\S`, 'm'),
          'with what it does',
        );
        assert.match(stdout, written, `${name} --help`);
      }
      for (const operand of Object.keys(operands)) {
        assert.match(ofCommand, new RegExp(`^- \`${operand}\`: `, 'm'), name);
        assert.match(stdout, new RegExp(`^  ${operand} `, 'm'), `${name} --help`);
      }
    }
  });

  test('docs/cli.md and --help show a line for each command that the program takes', async () => {
    for (const { name, example } of await loadCommands(COMMAND_NAMES)) {
      const words = example.match(/'[^']*'|\S+/g)?.map((word) => word.replaceAll("'", '')) ?? [];
      const line = await readCommandLine(words.slice(1));
      assert.deepEqual([words[0], line.command.name], ['sqlsync', name]);
      await assert.doesNotReject(argumentsOf(line), example);
    }
  });

  test('docs/cli.md lies where --help says', async () => {
    const { stdout } = await sqlsync(['--help']);
    assert.equal(stdout.trimEnd().split('\n').at(-1), MANUAL);
  });
});

test('every error code has an exit status that a shell can tell from success and difference', () => {
  for (const code of ERROR_CODES as readonly ErrorCode[]) {
    const status = exitStatusOf(code);
    assert.ok(Number.isInteger(status) && status >= 2 && status <= 255, `${code}: ${status}`);
  }
});
