/**
 * The Debian package, `build/sqlsync_VERSION_amd64.deb`: the folder for a server in /usr/lib/sqlsync, with manual pages,
 * completion for three shells, and the systemd units of the manual, which nobody has switched on yet.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { gzipSync } from 'node:zlib';
import { COMPLETION_SCRIPTS } from '../cli/commands/completion.ts';
import { packageRoot } from '../sqlite/binding-path.ts';
import { GLIBC } from './platforms.ts';

/** Debian's names of the processors. */
export const ARCHITECTURES: Readonly<Record<string, string>> = {
  'linux-x64': 'amd64',
  'linux-arm64': 'arm64',
};

/** Where the manual has each unit: the page, and which of its blocks. */
const UNITS: Readonly<Record<string, readonly [page: string, block: number]>> = {
  'sqlsync.service': ['service.md', 0],
  'sqlsync-backup@.service': ['backup.md', 0],
  'sqlsync-backup@.timer': ['backup.md', 1],
};

/** Where each shell looks for completions of all users. */
const COMPLETIONS: Readonly<Record<string, string>> = {
  bash: 'bash-completion/completions/sqlsync',
  zsh: 'zsh/vendor-completions/_sqlsync',
  fish: 'fish/vendor_completions.d/sqlsync.fish',
};

/** A service that runs on would load parts of another version, or none. */
const SCRIPTS: Readonly<Record<string, string>> = {
  postinst: `if [ -d /run/systemd/system ]; then
  systemctl daemon-reload || true
  if [ -n "$2" ]; then systemctl try-restart sqlsync.service || true; fi
fi`,
  prerm: `if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
  systemctl stop sqlsync.service 'sqlsync-backup@*' || true
fi`,
  postrm: `if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi`,
};

/** @property root - an empty folder, in which `server` becomes usr/lib/sqlsync. */
export interface DebianParts {
  readonly root: string;
  readonly server: string;
  readonly version: string;
  readonly architecture: string;
  /** Of dpkg-deb; every Debian can read xz. */
  readonly compression?: 'xz' | 'none';
}

export function debianFileName(version: string, architecture: string): string {
  return `sqlsync_${version}_${architecture}.deb`;
}

/** Writes `file`. Takes `server` away. */
export function writeDebianPackage(file: string, parts: DebianParts): void {
  const { root, server, compression = 'xz' } = parts;
  const own = join(root, 'usr', 'lib', 'sqlsync');
  mkdirSync(dirname(own), { recursive: true });
  renameSync(server, own);
  mkdirSync(join(root, 'usr', 'bin'));
  symlinkSync('../lib/sqlsync/bin/sqlsync', join(root, 'usr', 'bin', 'sqlsync'));
  const program = join(own, 'lib', 'node_modules', 'sqlsync-db');
  for (const [place, bytes] of filesOf(program)) {
    mkdirSync(dirname(join(root, place)), { recursive: true });
    writeFileSync(join(root, place), bytes);
  }
  rmSync(join(program, 'dist', 'man'), { recursive: true });
  writeControl(root, parts);
  run('chmod', ['-R', 'u+rwX,go+rX,go-w', root]);
  run('dpkg-deb', ['--root-owner-group', `-Z${compression}`, '--build', root, file]);
}

/** What the system looks for at places of its own, by these places. */
function filesOf(program: string): Map<string, Buffer> {
  const share = join('usr', 'share');
  const pages = join(program, 'dist', 'man');
  const license = readFileSync(join(program, 'LICENSE'), 'utf8');
  const changes = readFileSync(join(program, 'CHANGELOG.md'));
  const others =
    'Node.js, its parts and the packages in /usr/lib/sqlsync/lib have licenses of their own, beside them.\n';
  return new Map([
    ...readdirSync(pages).map(
      (name) =>
        [join(share, 'man', 'man1', `${name}.gz`), gzipSync(readFileSync(join(pages, name)))] as const,
    ),
    ...Object.entries(COMPLETIONS).map(
      ([shell, place]) => [join(share, place), Buffer.from(`${COMPLETION_SCRIPTS[shell]}\n`)] as const,
    ),
    ...[...unitsOfManual(join(program, 'docs'))].map(
      ([name, text]) => [join('usr', 'lib', 'systemd', 'system', name), Buffer.from(text)] as const,
    ),
    [join(share, 'doc', 'sqlsync', 'copyright'), Buffer.from(`${license}\n${others}`)],
    [join(share, 'doc', 'sqlsync', 'changelog.gz'), gzipSync(changes)],
  ]);
}

/** The units by their names, as the manual in `docs` shows them, for the place that the package gives the command. */
export function unitsOfManual(docs: string): Map<string, string> {
  return new Map(
    Object.entries(UNITS).map(([name, [page, block]]) => {
      const blocks = [...readFileSync(join(docs, page), 'utf8').matchAll(/^```ini\n(.*?)^```$/gms)];
      const text = blocks[block]?.[1];
      if (text === undefined) throw new Error(`docs/${page} has no block for ${name}`);
      return [name, text.replaceAll('/usr/local/bin/', '/usr/bin/')];
    }),
  );
}

function writeControl(root: string, { version, architecture }: DebianParts): void {
  const files = readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
  const sums = files.map((file) => {
    const bytes = readFileSync(file);
    return {
      length: bytes.length,
      line: `${createHash('md5').update(bytes).digest('hex')}  ${relative(root, file)}\n`,
    };
  });
  const size = sums.reduce((sum, { length }) => sum + Math.ceil(length / 4096) * 4, 0);
  const {
    author = 'unknown',
    homepage,
    description,
  } = JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')) as {
    author?: string;
    homepage?: string;
    description: string;
  };
  const control = join(root, 'DEBIAN');
  mkdirSync(control);
  writeFileSync(join(control, 'md5sums'), sums.map(({ line }) => line).join(''));
  writeFileSync(
    join(control, 'control'),
    `Package: sqlsync
Version: ${version.replaceAll('-', '~')}
Architecture: ${architecture}
Maintainer: ${author}
Installed-Size: ${size}
Depends: libc6 (>= ${GLIBC}), libstdc++6, libgcc-s1 | libgcc1
Section: database
Priority: optional
${homepage === undefined ? '' : `Homepage: ${homepage}\n`}Description: exact copies of live SQLite databases
 ${description}.
 It brings its own Node.js.
`,
  );
  for (const [name, text] of Object.entries(SCRIPTS))
    writeFileSync(join(control, name), `#!/bin/sh\nset -e\n${text}\n`, { mode: 0o755 });
}

function run(program: string, args: readonly string[]): void {
  const { status, stderr, error } = spawnSync(program, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${program} ${args.join(' ')} failed: ${error?.message ?? stderr}`);
}
