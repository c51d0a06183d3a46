import { SqlsyncError } from '../errors.ts';

/**
 * The oldest Node.js that works, as in `engines` of package.json: the first 22 that runs TypeScript without a flag.
 * `bin/sqlsync.js` makes the same check in JavaScript that an old Node.js can still parse.
 */
export const NODE_VERSION_MIN = '22.18';

/**
 * The Node-API of better-sqlite3's sources: a Node.js without it (20, 23.0 to 23.5) crashes with a segmentation fault.
 */
const NODE_API_MIN = 10;

/** Throws NODE_UNSUPPORTED if this Node.js is too old. Call it before loading any native binding. */
export function requireSupportedNode(versions: { node: string; napi?: string } = process.versions): void {
  const [major = 0, minor = 0] = versions.node.split('.').map(Number);
  const [majorMin = 0, minorMin = 0] = NODE_VERSION_MIN.split('.').map(Number);
  const newEnough = major > majorMin || (major === majorMin && minor >= minorMin);
  if (newEnough && Number(versions.napi ?? 0) >= NODE_API_MIN) return;
  throw new SqlsyncError(
    'NODE_UNSUPPORTED',
    `sqlsync needs Node.js ${NODE_VERSION_MIN} or newer, but this is Node.js ${versions.node} (${process.execPath}).`,
    { hint: `Install Node.js ${NODE_VERSION_MIN} or newer.` },
  );
}
