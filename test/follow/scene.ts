import assert from 'node:assert/strict';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { generateDatabase } from '../../fixtures/generate.ts';
import { tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import type { OtherConnection } from '../support/other-process.ts';
import { stateOf, untilSeen } from './following.ts';
import type { Following } from './following.ts';

export interface Scene {
  readonly folder: string;
  readonly origin: string;
  readonly replica: string;
  readonly other: OtherProcess;
  /** The application's connection. */
  readonly app: OtherConnection;
}

export const CHANGE = 'UPDATE item SET amount = amount + 1 WHERE id % 50 = 7';

export async function scene(
  t: TestContext,
  options: { journalMode?: 'wal' | 'delete'; pageSize?: number } = {},
): Promise<Scene> {
  const folder = tempDir(t);
  const [origin, replica] = [join(folder, 'origin.db'), join(folder, 'replica.db')];
  generateDatabase(origin, { rows: 600, pageSize: 1024, journalMode: 'wal', ...options });
  const other = new OtherProcess(t);
  return { folder, origin, replica, other, app: await other.open(origin, { timeoutMs: 20_000 }) };
}

/** Waits until the replica is what the origin is now. */
export async function untilFollowed(
  { origin, other, replica }: Scene,
  ...following: Following[]
): Promise<void> {
  const state = await stateOf(other, origin);
  assert.ok(state !== undefined, 'the origin can be read');
  await untilSeen(other, replica, state, following);
}
