import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../sqlite/binding-path.ts';

/**
 * A program out of an npm package that only makers of a release need. npm puts the package into `build/` at the first
 * call. @param path Of the program within the package.
 */
export function npmProgram(name: string, version: string, path: string): string {
  const folder = join(packageRoot(), 'build', 'release-tools', `${name.replaceAll('/', '-')}-${version}`);
  const program = join(folder, 'node_modules', name, path);
  if (existsSync(program)) return program;
  mkdirSync(folder, { recursive: true });
  // For another platform than this one, too.
  const args = [
    'install',
    '--no-save',
    '--force',
    '--ignore-scripts',
    '--prefix',
    folder,
    `${name}@${version}`,
  ];
  const { status } = spawnSync('npm', args, { stdio: 'inherit' });
  if (status !== 0 || !existsSync(program)) throw new Error(`npm could not install ${name} ${version}`);
  return program;
}

/** Node.js itself for a platform such as `linux-arm64`, in the version with which a checkout works. */
export function nodeProgram(platform: string): string {
  const manifest = readFileSync(join(packageRoot(), 'package.json'), 'utf8');
  const { devDependencies } = JSON.parse(manifest) as { devDependencies: Readonly<Record<'node', string>> };
  return npmProgram(`node-${platform}`, devDependencies.node, 'bin/node');
}
