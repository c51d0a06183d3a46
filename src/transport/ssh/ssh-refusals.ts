import type { Client } from 'ssh2';

type OnRefusal = (protocol: unknown, methodsLeft: unknown, partialSuccess: unknown) => void;

/** What of ssh2's client (lib/client.js of 1.17.0, the one version that we take) is needed beyond its types. */
interface ClientInternals {
  _protocol: { _handlers: { USERAUTH_FAILURE: OnRefusal } };
}

/**
 * Tells of each refusal what the host accepts from then on. ssh2 drops that where an agent's key was refused, or was
 * accepted and is not enough (partial success): then it would go on offering keys instead of what the host wants next.
 * Where the client is not as this file knows it, nothing is told. To be called after `connect()`.
 */
export function observeRefusals(client: Client, onRefusal: (methodsLeft: readonly string[]) => void): void {
  const { _protocol: protocolOf } = client as unknown as Partial<ClientInternals>;
  const { _handlers: handlers } = protocolOf ?? {};
  const handler = handlers?.USERAUTH_FAILURE;
  if (handlers === undefined || typeof handler !== 'function') return;
  handlers.USERAUTH_FAILURE = (protocol, methodsLeft, partialSuccess) => {
    if (Array.isArray(methodsLeft)) onRefusal(methodsLeft.map(String));
    handler(protocol, methodsLeft, partialSuccess);
  };
}
