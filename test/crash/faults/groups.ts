import type { FaultGroup } from './group.ts';

/** Every group by its name, in the order in which `npm run faults` runs them. */
export const FAULT_GROUPS: Readonly<Record<string, FaultGroup>> = {};
