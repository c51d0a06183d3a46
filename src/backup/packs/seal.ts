import { damaged } from '../store-error.ts';

/** The kind of a file, or of a frame of a pack; a scheme with authentication protects it too. */
export type SealedKind = 'frame' | 'index' | 'snapshot' | 'mark' | 'forgotten';

/** Everything in a store except `config` passes this step when it is written and when it is read. */
export interface Sealer {
  readonly scheme: string;
  seal(kind: SealedKind, plain: Uint8Array): Uint8Array;
  /** Throws SqlsyncError STORE_DAMAGED for bytes that were not sealed in this way. */
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
