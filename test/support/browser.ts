import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { chromium } from 'playwright-core';
import type { Browser } from 'playwright-core';

const EXECUTABLE = (process.env['PATH'] ?? '')
  .split(delimiter)
  .map((folder) => join(folder, 'chromium'))
  .find((path) => existsSync(path));

/** No pages of its own, no requests of its own; as root it has no sandbox. */
const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-dev-shm-usage',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** A machine may be slow: what takes longer has failed. */
export const LIMIT_MS = 180_000;

/** Resolves to the reason why there is no browser, if this machine cannot start one. */
export async function startBrowser(): Promise<Browser | string> {
  if (EXECUTABLE === undefined)
    return 'NO BROWSER TEST: there is no chromium; install it (apt-get install --no-install-recommends chromium)';
  try {
    return await chromium.launch({ executablePath: EXECUTABLE, args: FLAGS, timeout: LIMIT_MS });
  } catch (error) {
    return `NO BROWSER TEST: ${EXECUTABLE} does not start: ${String(error)}`;
  }
}
