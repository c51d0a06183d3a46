import type { Client } from 'ssh2';

type OnRefusal = (protocol: unknown, methodsLeft: unknown, partialSuccess: unknown) => void;

/** The parts of ssh2's client (lib/client.js of 1.17.0, our pinned version) that its types lack. */
interface ClientInternals {
  _protocol: { _handlers: { USERAUTH_FAILURE: OnRefusal } };
}

/**
 * Reports after each refusal which methods the host still accepts. ssh2 drops that information if an agent's key was
 * refused, or was accepted but is not enough (partial success): it would then keep offering keys instead of what the
 * host wants next. Reports nothing if the client does not look as this file expects. Call it after `connect()`.
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
