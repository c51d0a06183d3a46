/** What the peer of an agent may do with a store. */
export interface StoreRights {
  /** 'add': files that others do not lack, and that nothing deletes or replaces. */
  readonly may: 'read' | 'add' | 'all';
  /** The folder of the store that the peer named: absolute, with every link resolved. Throws SqlsyncError RESTRICTED. */
  folder(named: string): string;
  /** Throws SqlsyncError RESTRICTED if the path of a file in the folder, or of a folder, leads out of what is allowed. */
  file(path: string): void;
}
