import type { FaultGroup } from './group.ts';
import { follow } from './follow.ts';
import { corruption } from './corruption.ts';
import { errors } from './errors.ts';
import { kill } from './kill.ts';
import { origin } from './origin.ts';
import { powerCut } from './power-cut.ts';
import { replica } from './replica.ts';
import { store } from './store.ts';
import { surroundings } from './surroundings.ts';
import { wire } from './wire.ts';

/** Every group by its name, in the order in which `npm run faults` runs them. */
export const FAULT_GROUPS: Readonly<Record<string, FaultGroup>> = {
  kill,
  errors,
  'power-cut': powerCut,
  corruption,
  surroundings,
  wire,
  origin,
  replica,
  store,
  follow,
};
