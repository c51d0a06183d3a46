import type { RawDatabase } from '../binding.ts';
import type { TextEncoding } from './literals.ts';

/** A table whose rows are read. */
export interface TableShape {
  readonly name: string;
  /** The name by which the rowid can be read, where there is one. */
  readonly rowid: string | undefined;
  /** The columns that are inserted, as SQL; the rowid among them where the rows would not get it by themselves. */
  readonly columns: readonly string[];
  /** `INSERT INTO … VALUES`. */
  readonly insert: string;
}

/** Where a scan is: behind the row with this rowid, or in a table without one behind so many rows. */
export interface Place {
  readonly rowid: bigint | undefined;
  readonly count: number;
}

export interface RowScan {
  readonly database: RawDatabase;
  readonly table: TableShape;
  readonly encoding: TextEncoding;
  /** Bytes of a value in one statement; a longer one is put together from pieces of so many, an even number. */
  readonly pieceBytes: number;
  readonly onUnreadable: (what: string) => void;
}
