import { SqlsyncError } from '../../errors.ts';
import type { Backend } from '../backends/backend.ts';
import { newConfig, putConfig, readConfig } from '../files/config.ts';
import type { StoreConfig } from '../files/config.ts';
import { decodeIndex } from '../files/index-file.ts';
import { idOf, isHexId, toHex } from '../objects/object-id.ts';
import { sealerOf } from '../files/seal.ts';
import { decodeSnapshot } from '../files/snapshot-record.ts';
import type { StoreAccess } from '../files/store-files.ts';

/** So that a mark that another run may have made is old enough under any likely grace period. */
const LONGEST_GRACE_SECONDS = 365 * 24 * 3600;

/**
 * Opens a store, and writes a `config` that is missing or damaged anew, where other files prove that there is a store, and that it is not
 * encrypted. Its id is another one then. Throws SqlsyncError STORE_NOT_FOUND, STORE_VERSION, STORE_DAMAGED, STORE_UNAVAILABLE.
 */
export async function openOrRepairConfig(
  backend: Backend,
  { dryRun }: { readonly dryRun: boolean },
): Promise<{ access: StoreAccess; configWritten: boolean }> {
  try {
    return { access: accessOf(backend, await readConfig(backend)), configWritten: false };
  } catch (error) {
    if (!(error instanceof SqlsyncError) || !['STORE_NOT_FOUND', 'STORE_DAMAGED'].includes(error.code))
      throw error;
    if (!(await isPlainStore(backend))) throw error;
  }
  const options = { graceSeconds: await graceInDamaged(backend) };
  if (dryRun) return { access: accessOf(backend, newConfig(options)), configWritten: true };
  await backend.delete('config');
  return { access: accessOf(backend, await putConfig(backend, options)), configWritten: true };
}

function accessOf(backend: Backend, config: StoreConfig): StoreAccess {
  return { backend, sealer: sealerOf(config.encryption.scheme), config };
}

/** Whether a record or an index can be read as it is: then nothing here is encrypted. */
async function isPlainStore(backend: Backend): Promise<boolean> {
  for (const folder of ['snapshots', 'indexes'] as const) {
    for (const { name } of await backend.list(folder)) {
      if (!isHexId(name)) continue;
      const bytes = await backend.get(`${folder}/${name}`);
      if (toHex(idOf(bytes)) !== name) continue;
      try {
        if (folder === 'snapshots') decodeSnapshot(bytes, name);
        else decodeIndex(bytes, `indexes/${name}`);
        return true;
      } catch {
        // Of a later version, or sealed.
      }
    }
  }
  return false;
}

/** What the damaged file says of the grace period, unless that is less than the usual one; undefined for the usual one. */
async function graceInDamaged(backend: Backend): Promise<number | undefined> {
  try {
    const text = new TextDecoder().decode(await backend.get('config'));
    const seconds = Number(/"graceSeconds": (\d+)/.exec(text)?.[1]);
    const usual = newConfig({}).graceSeconds;
    return seconds > usual && seconds <= LONGEST_GRACE_SECONDS ? seconds : undefined;
  } catch (error) {
    if (error instanceof SqlsyncError && error.code === 'STORE_FILE_MISSING') return undefined;
    throw error;
  }
}
