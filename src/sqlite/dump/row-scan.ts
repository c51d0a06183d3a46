import type { RawDatabase } from '../binding.ts';
import type { TextEncoding } from './literals.ts';

/** A table whose rows the dump reads. */
export interface TableShape {
  readonly name: string;
  /** The name by which the rowid can be read, if there is one. */
  readonly rowid: string | undefined;
  /** The columns to insert, as SQL; with the rowid if the rows would not get it by themselves. */
  readonly columns: readonly string[];
  /** `INSERT INTO … VALUES`. */
  readonly insert: string;
}

/** Where a scan is: after the row with this rowid, or in a table without rowids after this many rows. */
export interface Place {
  readonly rowid: bigint | undefined;
  readonly count: number;
}

export interface RowScan {
  readonly database: RawDatabase;
  readonly table: TableShape;
  readonly encoding: TextEncoding;
  /** Bytes of a value in one statement, an even number; a longer value is assembled from pieces of this size. */
  readonly pieceBytes: number;
  readonly onUnreadable: (what: string) => void;
}
