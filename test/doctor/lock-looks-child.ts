import { LockLooks } from '../../src/doctor/collect/lock-looks.ts';

/** `lock-looks-child.ts DATABASE LOOKS`: prints the ids of the processes that hold WRITE, at each of so many looks. */
const [path = '', count = '0'] = process.argv.slice(2);
const looks = new LockLooks(path);
const writers = Array.from({ length: Number(count) }, () =>
  looks.look([]).flatMap(({ pid, name }) => (name === 'WRITE' ? [pid] : [])),
);
console.log(JSON.stringify({ writers, longListMs: looks.longListMs }));
