import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Scene } from './scene.ts';
import { Trial } from './trial.ts';
import type { TrialOptions } from './trial.ts';

/** Tries the service for so long. `report` gets each broken promise; resolves with the figures, a line each. */
export async function soakService(options: TrialOptions, report: (text: string) => void): Promise<string[]> {
  const folder = mkdtempSync(join(tmpdir(), 'sqlsync-trial-'));
  const endings: (() => unknown)[] = [() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 })];
  const after = (end: () => unknown): void => void endings.push(end);
  try {
    const trial = new Trial(await Scene.start(folder, options.seed, options.large, after), options, report);
    after(() => trial.abandon());
    await trial.run();
    return trial.figures();
  } finally {
    for (const end of endings.toReversed()) await end();
  }
}
