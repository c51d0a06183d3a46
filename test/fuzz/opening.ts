import { message } from '../../protocol/encode.ts';
import type { Message, MessageName } from '../../protocol/messages.ts';
import { PROTOCOL_VERSION } from '../../protocol/version.ts';

/** No session begins without these. */
export const OPENING: ReadonlySet<MessageName> = new Set([
  'hello',
  'open',
  'replicate',
  'openStore',
  'storeOpened',
]);
export const NONE: ReadonlySet<MessageName> = new Set();

export function hello(): Message {
  return message('hello', { minVersion: 1, maxVersion: PROTOCOL_VERSION, program: 'hostile' });
}
