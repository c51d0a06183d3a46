import { testShortRun } from './short.ts';

testShortRun(
  'origin',
  'an origin to which its owner does everything at once is copied as one snapshot, or the sync says why not',
);
