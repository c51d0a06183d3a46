import type { FaultGroup } from './group.ts';
import { errors } from './errors.ts';
import { kill } from './kill.ts';

/** Every group by its name, in the order in which `npm run faults` runs them. */
export const FAULT_GROUPS: Readonly<Record<string, FaultGroup>> = { kill, errors };
