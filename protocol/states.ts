import type { MessageName } from './messages.ts';

/**
 * The messages that an agent may receive in each state; any other is a protocol violation. SPEC.md, "States", holds the
 * same table. `error` is legal in all states and ends the conversation. `alive` is legal in all but the first, and
 * changes nothing.
 *
 * The side that the user started is **near**, the other **far**. A far agent begins `unassigned`: the first message
 * after `hello` makes it the replica agent (`replicate`) or the origin agent (`open`).
 */
export const STATES = {
  /** Either side, before the peer's hello. */
  greeting: ['hello', 'error'],
  /** Far side: no database yet, or the last one is done. */
  unassigned: ['replicate', 'open', 'examine', 'list', 'recognize', 'openStore', 'close', 'alive', 'error'],
  /** Near side that sent `examine`. */
  examining: ['examined', 'alive', 'error'],
  /** Near side that sent `list`. */
  listing: ['listed', 'alive', 'error'],
  /** Near side that sent `recognize`. */
  recognizing: ['recognized', 'alive', 'error'],
  /** Near side that sent `openStore`. */
  openingStore: ['storeOpened', 'alive', 'error'],
  /** Near side that has a store open. */
  usingStore: ['filePart', 'fileDone', 'fileDigest', 'filesListed', 'fileFailed', 'alive', 'error'],
  /** Far side that serves a store. */
  servingStore: [
    'getFile',
    'putFile',
    'deleteFile',
    'removeLeftovers',
    'digestFile',
    'listFiles',
    'close',
    'alive',
    'error',
  ],
  /** The same, between `putFile` and the last part of the file. */
  takingFile: ['filePart', 'alive', 'error'],
  /** Near origin agent that sent `replicate`. */
  offering: ['open', 'alive', 'error'],
  /** Origin agent that waits for a change of its database. */
  waiting: ['wake', 'alive', 'error'],
  /** Origin agent that holds a snapshot. A `wake` may have crossed it. */
  serving: [
    'wake',
    'getHashes',
    'getChildren',
    'getPages',
    'getOwners',
    'getRoot',
    'release',
    'progress',
    'done',
    'open',
    'alive',
    'error',
  ],
  /** Origin agent that released the snapshot. */
  released: ['progress', 'done', 'open', 'alive', 'error'],
  /** Origin agent whose snapshot reached its limit; questions may still be under way. */
  over: [
    'wake',
    'getHashes',
    'getChildren',
    'getPages',
    'getOwners',
    'getRoot',
    'release',
    'progress',
    'done',
    'open',
    'alive',
    'error',
  ],
  /** Replica agent that sent `open`. */
  opening: ['snapshot', 'alive', 'error'],
  /** As `opening`, for a new attempt: answers to the questions of the last one may still be under way. */
  reopening: ['snapshot', 'hashes', 'pages', 'owners', 'root', 'roundOver', 'alive', 'error'],
  /** Replica agent that has the snapshot. */
  driving: ['hashes', 'pages', 'owners', 'root', 'roundOver', 'alive', 'error'],
} as const;

export type State = keyof typeof STATES;

export function isLegal(state: State, message: MessageName): boolean {
  return (STATES[state] as readonly MessageName[]).includes(message);
}
