import { fileURLToPath } from 'node:url';
import { ObedientChild } from '../support/child-orders.ts';

const CHILD = fileURLToPath(new URL('./pools-child.ts', import.meta.url));

/** An application that writes a database through the pools, in a process of its own. It ends with the test. */
export class PoolsApplication {
  readonly #child: ObedientChild<string, string>;

  static async open(t: { after(end: () => unknown): void }, path: string): Promise<PoolsApplication> {
    const child = await ObedientChild.start<string, string>(CHILD, [path]);
    t.after(() => child.kill());
    return new PoolsApplication(child);
  }

  private constructor(child: ObedientChild<string, string>) {
    this.#child = child;
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** Resolves when it is committed. Rejects if the application has ended. */
  async exec(sql: string): Promise<void> {
    await this.#child.order(sql);
  }

  /** It closes its pools, and ends. */
  close(): Promise<void> {
    return this.#child.stop();
  }

  kill(): Promise<void> {
    return this.#child.kill();
  }
}
