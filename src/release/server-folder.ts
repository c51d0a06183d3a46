/**
 * `npm run bundle [-- --only linux-arm64]`: one folder for a server, as `build/sqlsync-VERSION-PLATFORM.tar.gz`, and as a
 * Debian package where dpkg-deb is, by default for the platforms that were tried. It has Node.js, the program and its
 * binding, and needs glibc 2.28, libstdc++ and libgcc_s, but no npm, compiler or network.
 *
 *     bin/sqlsync                        a shell script; any symbolic link may lead to it
 *     lib/node                           Node.js itself, stripped where the tool for that is there
 *     lib/node_modules/sqlsync-db/       the package, with the binding in prebuilds/
 *     lib/node_modules/…                 the packages that it needs to run
 */
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { parseArgs } from 'node:util';
import { BINDING_NAME, bindingRecipe, packageRoot, prebuildsFolder } from '../sqlite/binding-path.ts';
import { ARCHITECTURES, debianFileName, writeDebianPackage } from './debian-package.ts';
import { nodeProgram } from './npm-program.ts';
import { TRIED } from './platforms.ts';

/** The platforms, and the programs that strip Node.js for them. */
const PLATFORMS: Readonly<Record<string, string>> = {
  'linux-x64': 'x86_64-linux-gnu-strip',
  'linux-arm64': 'aarch64-linux-gnu-strip',
};

/** Packages that only compile the binding. */
const COMPILER_PACKAGES = new Set(['node-addon-api', 'node-api-headers']);

/** Parts of better-sqlite3 for compiling, and bindings that sqlsync does not use. */
const NOT_NEEDED = /^better-sqlite3\/(?:deps|src|prebuilds)(?:\/|$)/;

const WRAPPER = `#!/bin/sh
# Runs the sqlsync of this folder in its own Node.js.
file=$0
while [ -h "$file" ]; do
  link=$(readlink "$file")
  case $link in
    /*) file=$link ;;
    *) file=$(dirname "$file")/$link ;;
  esac
done
# With CDPATH, cd would look elsewhere, and print what it finds.
root=$(CDPATH= cd -P -- "$(dirname "$file")/.." && pwd) || exit 70
# Options for the user's own Node.js may be unknown to this one.
unset NODE_OPTIONS
exec "$root/lib/node" "$root/lib/node_modules/sqlsync-db/bin/sqlsync.js" "$@"
`;

/** What a folder is made of, besides this checkout. */
export interface ServerParts {
  /** The Node.js binary for the platform. */
  readonly node: string;
  /** The binding for it, and its key. */
  readonly binding: string;
  readonly key: string;
  /** The program that strips Node.js; without it, Node.js stays as it is. */
  readonly strip?: string;
}

/** Makes `folder`, which must not exist. dist/ has to be built. */
export function writeServerFolder(
  folder: string,
  { node, binding, key, strip = 'strip' }: ServerParts,
): void {
  const modules = join(folder, 'lib', 'node_modules');
  const own = join(modules, 'sqlsync-db');
  mkdirSync(own, { recursive: true });
  unpackOwn(own);
  for (const name of packagesToRun()) {
    cpSync(join(packageRoot(), 'node_modules', name), join(modules, name), {
      recursive: true,
      filter: (source) => !NOT_NEEDED.test(relative(join(packageRoot(), 'node_modules'), source)),
    });
  }
  mkdirSync(join(own, 'prebuilds', key), { recursive: true });
  cpSync(binding, join(own, 'prebuilds', key, BINDING_NAME));
  const program = join(folder, 'lib', 'node');
  cpSync(realpathSync(node), program);
  chmodSync(program, 0o755);
  spawnSync(strip, [program], { stdio: 'ignore' });
  const license = join(dirname(dirname(node)), 'LICENSE');
  if (existsSync(license)) cpSync(license, join(folder, 'lib', 'node.LICENSE'));
  mkdirSync(join(folder, 'bin'));
  writeFileSync(join(folder, 'bin', 'sqlsync'), WRAPPER, { mode: 0o755 });
}

/** The content of the published package, without types and without bindings for other platforms. */
function unpackOwn(target: string): void {
  const workDir = mkdtempSync(join(dirname(target), '.packing-'));
  try {
    run('npm', ['pack', '--ignore-scripts', '--silent', '--pack-destination', workDir]);
    const [archive = ''] = readdirSync(workDir);
    run('tar', ['-xf', join(workDir, archive), '-C', target, '--strip-components', '1']);
  } finally {
    rmSync(workDir, { recursive: true, force: true });
  }
  for (const part of ['prebuilds', join('dist', 'types')])
    rmSync(join(target, part), { recursive: true, force: true });
}

/** The installed packages that run with the program, by their places below node_modules. */
function packagesToRun(): string[] {
  const lock = JSON.parse(readFileSync(join(packageRoot(), 'package-lock.json'), 'utf8')) as {
    packages: Readonly<Record<string, { readonly dev?: boolean; readonly optional?: boolean }>>;
  };
  return Object.entries(lock.packages).flatMap(([place, { dev, optional }]) => {
    const name = /^node_modules\/((?:@[^/]+\/)?[^/]+)$/.exec(place)?.[1];
    return name === undefined || dev === true || optional === true || COMPILER_PACKAGES.has(name)
      ? []
      : [name];
  });
}

function run(program: string, args: readonly string[]): void {
  const { status, stderr } = spawnSync(program, args, { cwd: packageRoot(), encoding: 'utf8' });
  if (status !== 0) throw new Error(`${program} ${args.join(' ')} failed: ${stderr}`);
}

function makeArchive(platform: string): void {
  const { version } = JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')) as {
    version: string;
  };
  const { key } = bindingRecipe(platform);
  const binding = join(prebuildsFolder(), key, BINDING_NAME);
  if (!existsSync(binding)) {
    throw new Error(`${binding} is missing: npm run build:prebuilt -- --only ${platform}`);
  }
  const node = nodeProgram(platform);
  const name = `sqlsync-${version}-${platform}`;
  const build = join(packageRoot(), 'build');
  const workDir = mkdtempSync(join(build, '.bundling-'));
  try {
    const server = join(workDir, name);
    writeServerFolder(server, { node, binding, key, strip: PLATFORMS[platform] as string });
    const archive = join(build, `${name}.tar.gz`);
    const modes = ['--owner=0', '--group=0', '--mode=u+rwX,go+rX,go-w'];
    run('tar', ['-C', workDir, ...modes, '-czf', archive, name]);
    console.log(archive);
    if (spawnSync('dpkg-deb', ['--version']).status !== 0) {
      console.log('No Debian package: there is no dpkg-deb here');
      return;
    }
    const architecture = ARCHITECTURES[platform] as string;
    const debian = join(build, debianFileName(version, architecture));
    writeDebianPackage(debian, { root: join(workDir, 'root'), server, version, architecture });
    console.log(debian);
  } finally {
    rmSync(workDir, { recursive: true, force: true });
  }
}

const [, program] = process.argv;
// Not `import.meta.main`, which the oldest supported Node.js may lack.
if (program !== undefined && realpathSync(program) === import.meta.filename) {
  const { only = TRIED } = parseArgs({ options: { only: { type: 'string', multiple: true } } }).values;
  for (const platform of only) {
    if (!Object.hasOwn(PLATFORMS, platform))
      throw new Error(`--only ${platform}: expected ${Object.keys(PLATFORMS).join(' or ')}`);
    makeArchive(platform);
  }
}
