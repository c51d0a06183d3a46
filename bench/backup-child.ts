/** One call of the backup store in a process of its own, to be measured: `node bench/backup-child.ts NAME JSON`. */
import { runBackup } from '../src/backup/copy/backup.ts';
import type { BackupOptions, RestoreOptions } from '../src/backup/options.ts';
import { runRestore } from '../src/backup/restore/restore.ts';
import { initStore, openStore } from '../src/backup/store.ts';
import { keepYoungGenerationSmall } from '../src/backup/young-generation.ts';

// As the commands do.
keepYoungGenerationSmall();
const [name, json] = process.argv.slice(2);
const options: unknown = JSON.parse(json ?? '{}');
const { store } = options as { store: string };
let result: unknown;
if (name === 'init') await initStore(store);
else if (name === 'backup') result = (await runBackup(options as BackupOptions)).snapshot.statistics;
else if (name === 'restore') result = (await runRestore(options as RestoreOptions)).outcome;
else if (name === 'check')
  result = (await (await openStore(store)).check({ readData: true })).problems.length;
else throw new Error(`${name}: expected init, backup, restore or check`);
console.log(JSON.stringify({ result: result ?? null }));
