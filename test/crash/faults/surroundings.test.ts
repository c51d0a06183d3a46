import { testShortRun } from './short.ts';

testShortRun(
  'surroundings',
  'an agent without room, descriptors, rights or its folder leaves one of two states',
);
