import { testShortRun } from './short.ts';

testShortRun(
  'kill',
  'an agent that is killed at any system call leaves one of two states, and the next run ends well',
);
