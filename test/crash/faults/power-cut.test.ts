import { testShortRun } from './short.ts';

testShortRun(
  'power-cut',
  'a power cut leaves one of two states, and the new one once its commit was confirmed',
);
