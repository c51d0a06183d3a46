import type { FrameEncoder } from '../../protocol/encode.ts';
import type { Message } from '../../protocol/messages.ts';

/** A frame in one piece, with bytes of its own. */
export function encodeFrame(encoder: FrameEncoder, message: Message): Buffer {
  return Buffer.concat(encoder.encode(message));
}

/** A decoded message that outlives the decoder's next one. */
export function detached(message: Message): Message {
  const isShared = message.type === 'pages' || message.type === 'filePart';
  return isShared ? { ...message, data: new Uint8Array(message.data) } : message;
}
