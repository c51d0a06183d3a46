import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { bindingRecipe } from '../sqlite/binding-path.ts';

/** Debian 10, Ubuntu 18.10 and RHEL 8 have it. */
export const GLIBC = '2.28';

/** The oldest macOS for which Node.js 22 was made. */
export const MACOS = '11.0';

/** The platforms, and what Zig calls them. */
export const TARGETS: Readonly<Record<string, string>> = {
  'linux-x64': `x86_64-linux-gnu.${GLIBC}`,
  'linux-arm64': `aarch64-linux-gnu.${GLIBC}`,
  'linux-x64-musl': 'x86_64-linux-musl',
  'linux-arm64-musl': 'aarch64-linux-musl',
  'darwin-x64': `x86_64-macos.${MACOS}`,
  'darwin-arm64': `aarch64-macos.${MACOS}`,
};

/** The platforms on which somebody has run the binding: a release carries no others unless they are asked for. */
export const TRIED: readonly string[] = ['linux-x64', 'linux-arm64'];

/** The key of the binding for each platform, of the present sources. */
export function bindingKeys(): Record<string, string> {
  return Object.fromEntries(Object.keys(TARGETS).map((platform) => [platform, bindingRecipe(platform).key]));
}

/** Removes all but the bindings of the present sources from `folder`, which the package carries whole. */
export function removeOldBindings(folder: string): void {
  if (!existsSync(folder)) return;
  const keys = Object.values(bindingKeys());
  for (const name of readdirSync(folder)) {
    if (!keys.includes(name)) rmSync(join(folder, name), { recursive: true, force: true });
  }
}
