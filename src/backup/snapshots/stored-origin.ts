import type { OriginSnapshot } from '../../sync/agents/origin-snapshot.ts';
import type { ObjectReader } from '../objects/object-reader.ts';
import { SnapshotSource } from './snapshot-source.ts';
import type { StoreSnapshot } from '../types.ts';

/** A stored snapshot as an origin agent serves it. */
export class StoredOrigin extends SnapshotSource implements OriginSnapshot {
  readonly path: string;
  readonly host: string;
  readonly fileMode: number;
  readonly wal = false;
  readonly warnings: readonly string[] = [];
  readonly notes: readonly string[] = [];
  readonly walGrowthBytes = 0;
  readonly #startedAtMs: number = performance.now();

  constructor(reader: ObjectReader, snapshot: StoreSnapshot) {
    super(reader, snapshot);
    this.path = snapshot.path;
    this.host = snapshot.host;
    this.fileMode = snapshot.fileMode;
  }

  get heldMs(): number {
    return performance.now() - this.#startedAtMs;
  }

  /** No one asks this of a copy; `diff` looks at b-trees in restored databases. */
  ownersOf(): Map<string, number> {
    return new Map();
  }

  /** Objects never change. */
  checkUnreplaced(): void {
    // Objects never change.
  }
}
