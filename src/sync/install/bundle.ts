import { createHash } from 'node:crypto';
import { createReadStream, existsSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import { SqlsyncError, sanitizeText } from '../../errors.ts';
import { commandPath, VERSION } from '../program.ts';
import { TarSizes } from './tar-sizes.ts';

/** Platforms for which `npm run bundle` makes a bundle. */
export type Platform = 'linux-x64' | 'linux-arm64';

/** A folder for a server as one file: `sqlsync-VERSION-PLATFORM.tar.gz`. */
export interface Bundle {
  readonly path: string;
  readonly version: string;
  readonly platform: Platform;
  readonly sizeBytes: number;
  /** The sizes of all files in it. */
  readonly contentBytes: number;
  /** What tar writes of it, blocks of the file system included. */
  readonly neededBytes: number;
  readonly sha256: string;
}

const BLOCK_BYTES = 4096;

/** Its only folder is named after its version and platform. */
const TOP = /^(?:\.\/)?sqlsync-(\d+\.\d+\.\d+(?:[-+][\w.+-]*?)?)-(linux-(?:x64|arm64))\//;

/**
 * The path of the bundle for `platform`: the given one, the one that a checkout has made, or one that lies beside the
 * folder of a bundle that this program runs from. Throws SqlsyncError USAGE.
 */
export function findBundle(platform: Platform, given: string | undefined): string {
  if (given !== undefined) {
    if (statSync(given, { throwIfNoEntry: false })?.isFile() === true) return given;
    throw new SqlsyncError('USAGE', `--bundle: ${sanitizeText(given, 300)} is not a file`, {
      hint: 'Name a sqlsync-VERSION-PLATFORM.tar.gz. Only the shell expands ~, and it does not after a =.',
    });
  }
  const name = `sqlsync-${VERSION}-${platform}.tar.gz`;
  const root = dirname(dirname(commandPath()));
  // The package lies at lib/node_modules/sqlsync-db in a bundle's folder.
  const places = [join(root, 'build', name), join(root, '..', '..', '..', '..', name)];
  const found = places.find((path) => existsSync(path));
  if (found !== undefined) return found;
  throw new SqlsyncError(
    'USAGE',
    `no bundle for ${platform} is here: neither ${places.map((path) => sanitizeText(path, 300)).join(' nor ')} exists`,
    {
      hint: `Make it in a checkout of sqlsync (npm run bundle -- --only ${platform}), or name it: --bundle FILE.`,
    },
  );
}

/** Reads all of a bundle. Throws SqlsyncError USAGE if it is none, or is damaged. */
export async function readBundle(path: string): Promise<Bundle> {
  const hash = createHash('sha256');
  const sizes = new TarSizes();
  let sizeBytes = 0;
  try {
    const file = createReadStream(path);
    file.on('data', (bytes) => {
      hash.update(bytes);
      sizeBytes += bytes.length;
    });
    await pipeline(file, createGunzip(), async (unpacked: AsyncIterable<Buffer>) => {
      for await (const bytes of unpacked) sizes.push(bytes);
    });
  } catch (error) {
    throw notABundle(path, error instanceof Error ? error.message : String(error));
  }
  const [, version, platform] = TOP.exec(sizes.firstName) ?? [];
  if (version === undefined || !sizes.isWhole)
    throw notABundle(path, 'it does not begin with a folder sqlsync-VERSION-PLATFORM, or has no end');
  return {
    path,
    version,
    platform: platform as Platform,
    sizeBytes,
    contentBytes: sizes.contentBytes,
    neededBytes: sizes.contentBytes + sizes.entryCount * BLOCK_BYTES,
    sha256: hash.digest('hex'),
  };
}

function notABundle(path: string, why: string): SqlsyncError {
  return new SqlsyncError('USAGE', `${sanitizeText(path, 300)} is not a bundle of sqlsync: ${why}`, {
    hint: '`npm run bundle` makes one in a checkout: sqlsync-VERSION-PLATFORM.tar.gz.',
  });
}
