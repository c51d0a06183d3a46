import { dirname, resolve } from 'node:path';
import { parseDocument } from 'yaml';
import { stateFolder } from '../state/state.ts';
import { readText } from './read-config.ts';

/**
 * The state folder of a configuration, which may be wrong in all other places: its service runs on with what it took
 * before. Throws SqlsyncError CONFIG_INVALID if the file cannot be read.
 */
export function stateFolderIn(config: string): string {
  const file = resolve(config);
  const state: unknown = parseDocument(readText(config)).get('state');
  return stateFolder(file, typeof state === 'string' ? resolve(dirname(file), state) : undefined);
}
