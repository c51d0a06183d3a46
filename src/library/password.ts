import { passwordOf } from '../backup/keys/password.ts';
import type { Password, PasswordSource } from '../backup/keys/password.ts';

/** The child gets the password in a message: a function stays here. */
export async function withPassword<O extends { readonly password?: PasswordSource | Password | undefined }>(
  options: O,
): Promise<O> {
  const { password } = Object(options) as O;
  if (typeof password !== 'function') return options;
  return { ...options, password: await passwordOf(password).text() };
}
