const closers = new Set<() => void>();

/** Connections to stores stay open between operations; `close` ends one. Returns what to call once it has ended. */
export function onClose(close: () => void): () => void {
  closers.add(close);
  return () => closers.delete(close);
}

/** Ends the connections to stores, which would keep the process from ending. */
export function closeConnections(): void {
  for (const close of closers) close();
}
