import { testShortRun } from './short.ts';

testShortRun(
  'wire',
  'a frame that is truncated, lost, repeated, out of order, damaged or held back makes no torn replica and no false success',
);
