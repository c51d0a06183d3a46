/** `node pool-child.ts PATH LABEL [wait]`: holds the writer of a pool with a row written, or waits for it; tells which. */
import { writeSync } from 'node:fs';
import { openDatabase } from '../../src/pool/database.ts';

const [path = '', label = '', mode = 'hold'] = process.argv.slice(2);
const db = await openDatabase(path, { busyTimeoutMs: 600_000 });
setInterval(() => undefined, 1000);
writeSync(1, `${JSON.stringify({ pid: process.pid })}\n`);
if (mode === 'wait') writeSync(1, '{}\n');
await db.write.transaction(
  async (tx) => {
    await tx.run('INSERT INTO t (x) VALUES (1)');
    if (mode === 'hold') writeSync(1, '{}\n');
    await new Promise(() => undefined);
  },
  { label },
);
