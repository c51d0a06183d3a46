import { testShortRun } from './short.ts';

testShortRun(
  'errors',
  'an agent that meets an I/O error leaves one of two states, and says truly how it ended',
);
