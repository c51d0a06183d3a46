import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { FaultGroup } from './group.ts';
import { atEveryCall } from './store/calls.ts';
import { damageFiles } from './store/damage.ts';
import { killElsewhere } from './store/kill-elsewhere.ts';
import { failElsewhere, liveElsewhere } from './store/places.ts';
import { cutPower } from './store/power-cut.ts';
import { giveOut } from './store/surroundings.ts';
import { straceFault } from './traced-agent.ts';

/** The faults that can meet the commands of backups and the folder of a store. */
export const store: FaultGroup = async function* (options) {
  const folder = mkdtempSync(join(tmpdir(), 'sqlsync-store-'));
  try {
    const fault = straceFault(folder);
    if (fault === undefined) {
      yield* atEveryCall(folder, options);
      yield* cutPower(folder, options);
    } else process.emitWarning(fault);
    yield* giveOut(folder, options);
    yield* damageFiles(folder, options);
    yield* killElsewhere(folder, options);
    yield* failElsewhere(folder, options);
    yield* liveElsewhere(folder, options);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
};
