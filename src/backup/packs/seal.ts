import { damaged } from '../store-error.ts';

/** What a file, or a frame of a pack, is; part of what a scheme with authentication protects. */
export type SealedKind = 'frame' | 'index' | 'snapshot' | 'mark' | 'forgotten';

/** The one step that everything in a store but `config` passes when it is written and when it is read. */
export interface Sealer {
  readonly scheme: string;
  seal(kind: SealedKind, plain: Uint8Array): Uint8Array;
  /** Throws SqlsyncError STORE_DAMAGED for what was not sealed so. */
  open(kind: SealedKind, sealed: Uint8Array): Uint8Array;
}

const NONE: Sealer = {
  scheme: 'none',
  seal: (_kind, plain) => plain,
  open: (_kind, sealed) => sealed,
};

/** The sealer of the scheme that a store's `config` names. */
export function sealerOf(scheme: string): Sealer {
  if (scheme === NONE.scheme) return NONE;
  throw damaged('config', `names an unknown encryption, ${scheme}`);
}
