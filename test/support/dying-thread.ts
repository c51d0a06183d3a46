/** When a thread dies: while it is loaded, by an error then, or instead of the answer with this number. */
export type Death = 'exit at load' | 'error at load' | { readonly beforeAnswer: number };

/**
 * The environment of a process in which the threads die whose start data has a field of this name: `shared`,
 * the decompressor's, or `slots`, the page writer's.
 */
export function dyingThread(field: 'shared' | 'slots', death: Death): NodeJS.ProcessEnv {
  const kill =
    death === 'exit at load'
      ? 'process.exit(9);'
      : death === 'error at load'
        ? `throw new Error('died at load');`
        : `
          const { port } = workerData;
          const post = port.postMessage;
          let answers = 0;
          port.postMessage = function (...message) {
            if (++answers >= ${death.beforeAnswer}) process.exit(9);
            return post.apply(port, message);
          };`;
  const code = `
    import { isMainThread, workerData } from 'node:worker_threads';
    if (!isMainThread && workerData?.${field} !== undefined) { ${kill} }`;
  return { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(code)}` };
}
