import { testShortRun } from './short.ts';

testShortRun(
  'replica',
  'a replica that others read, checkpoint, write, sync and deprive of its WAL is one snapshot, and the next sync mends it',
);
