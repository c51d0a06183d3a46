import { testShortRun } from './short.ts';

testShortRun(
  'store',
  'a store keeps every snapshot whatever fails, and the next backup, prune and check succeed',
);
