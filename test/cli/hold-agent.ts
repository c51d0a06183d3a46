/**
 * Preloaded into sqlsync by `Hold` (see command.ts): lets an agent write so many bytes, then leaves a sign and keeps
 * everything else back until it is released. Does nothing in the near process.
 */
import { existsSync, writeFileSync } from 'node:fs';

interface HoldSettings {
  readonly bytes: number;
  readonly held: string;
  readonly released: string;
}

const settings = process.env['SQLSYNC_TEST_HOLD'];
if (settings !== undefined && process.argv[2] === 'agent') holdOutput(JSON.parse(settings) as HoldSettings);

function holdOutput({ bytes, held, released }: HoldSettings): void {
  const write = process.stdout.write.bind(process.stdout);
  let left = bytes;
  let kept: Uint8Array[] | undefined;
  process.stdout.write = (chunk: Uint8Array | string): boolean => {
    const data = Buffer.from(chunk as Uint8Array);
    if (kept !== undefined) {
      kept.push(data);
      return true;
    }
    const passed = data.subarray(0, left);
    left -= passed.length;
    if (passed.length > 0) write(passed);
    if (passed.length === data.length) return true;
    kept = [data.subarray(passed.length)];
    writeFileSync(held, '');
    const timer = setInterval(() => {
      if (!existsSync(released)) return;
      clearInterval(timer);
      write(Buffer.concat(kept ?? []));
      kept = undefined;
      left = Infinity;
    }, 5);
    timer.unref();
    return true;
  };
}
