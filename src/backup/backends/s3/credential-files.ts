import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { sanitizeText, SqlsyncError, systemErrorCode } from '../../../errors.ts';

/** The settings of one profile, by name: those of ~/.aws/credentials come before those of ~/.aws/config. */
export interface Profile {
  readonly name: string;
  /** True if the environment names the profile: then it has to exist. */
  readonly isNamed: boolean;
  readonly settings: Readonly<Record<string, string>>;
}

/** The profile of AWS_PROFILE, or `default`. Throws SqlsyncError STORE_UNAVAILABLE if it is named and missing. */
export function readProfile(env: NodeJS.ProcessEnv): Profile {
  const named = env['AWS_PROFILE'] || env['AWS_DEFAULT_PROFILE'] || '';
  const name = named || 'default';
  const config = sectionsIn(pathOf(env, 'AWS_CONFIG_FILE', 'config'));
  const keys = sectionsIn(pathOf(env, 'AWS_SHARED_CREDENTIALS_FILE', 'credentials'));
  const fromConfig = config.get(`profile ${name}`) ?? (name === 'default' ? config.get(name) : undefined);
  const fromKeys = keys.get(name);
  if (named !== '' && fromConfig === undefined && fromKeys === undefined)
    throw new SqlsyncError('STORE_UNAVAILABLE', `There is no profile ${sanitizeText(name, 80)} in ~/.aws`, {
      hint: 'Check AWS_PROFILE against ~/.aws/config and ~/.aws/credentials.',
    });
  return { name, isNamed: named !== '', settings: { ...fromConfig, ...fromKeys } };
}

function pathOf(env: NodeJS.ProcessEnv, variable: string, name: string): string {
  const home = env['HOME'] || homedir();
  const given = env[variable] ?? '';
  return given === '' ? join(home, '.aws', name) : given.replace(/^~(?=\/)/, home);
}

/** The sections of an INI file as AWS writes them; none of a missing file. Indented lines are nested, and left out. */
function sectionsIn(path: string): Map<string, Record<string, string>> {
  const sections = new Map<string, Record<string, string>>();
  let current: Record<string, string> = {};
  for (const line of textOf(path).split(/\r?\n/)) {
    const [, title] = /^\s*\[\s*(.+?)\s*\]\s*(?:[#;].*)?$/.exec(line) ?? [];
    if (title !== undefined) {
      const name = title.replace(/^(\w+)\s+(['"]?)(.*)\2$/, '$1 $3');
      current = sections.get(name) ?? {};
      sections.set(name, current);
      continue;
    }
    const [, key, value = ''] = /^([^\s#;=][^=]*?)\s*=\s*(.*?)\s*$/.exec(line) ?? [];
    if (key !== undefined) current[key.toLowerCase()] = value.replace(/\s+[#;].*$/, '');
  }
  return sections;
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') return '';
    throw new SqlsyncError('STORE_UNAVAILABLE', `${sanitizeText(path, 200)} cannot be read (${code})`, {
      hint: 'It holds the keys of the store: let this user read it.',
      cause: error,
    });
  }
}
