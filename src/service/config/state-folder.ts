import { dirname, resolve } from 'node:path';
import { LineCounter, parseDocument } from 'yaml';
import type { Node } from 'yaml';
import { stateFolder } from '../state/state.ts';
import { readText } from './read-config.ts';
import { STATE } from './schema.ts';
import { Reading } from './shapes.ts';

/**
 * The state folder of a configuration, which may be wrong in all other places: its service runs on with what it took
 * before. Throws SqlsyncError CONFIG_INVALID if the file cannot be read.
 */
export function stateFolderIn(config: string): string {
  const file = resolve(config);
  const document = parseDocument(readText(config));
  const reading = new Reading(document, new LineCounter(), {});
  const node = reading.resolve(document.get('state', true) as Node | undefined);
  const state = node === undefined ? undefined : STATE.read(node, 'state', reading);
  return stateFolder(file, state === undefined ? undefined : resolve(dirname(file), state));
}
