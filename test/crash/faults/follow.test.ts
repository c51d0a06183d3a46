import { testShortRun } from './short.ts';

testShortRun(
  'follow',
  'a replica that follows shows one state after another, whatever is killed, stopped or breaks',
);
