const closers: (() => void)[] = [];

/** Connections to stores stay open between operations; `close` ends one. */
export function onClose(close: () => void): void {
  closers.push(close);
}

/** Ends the connections to stores, which would keep the process from ending. */
export function closeConnections(): void {
  for (const close of closers.splice(0)) close();
}
