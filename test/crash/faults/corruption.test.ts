import { testShortRun } from './short.ts';

testShortRun(
  'corruption',
  'a damaged replica is mended or refused, and a damaged origin copied exactly or refused',
);
