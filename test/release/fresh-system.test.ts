/**
 * What a release brings, on systems that have nothing for it: a bare Debian 12 and an empty folder without a compiler.
 * It takes root, debootstrap, the bindings of `npm run build:prebuilt`, and the network, for minutes. Of the settings for
 * the network those in npm's own variables count, such as npm_config_cafile.
 */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { debianFileName, writeDebianPackage } from '../../src/release/debian-package.ts';
import { writeManPages } from '../../src/release/man-pages.ts';
import { nodeProgram } from '../../src/release/npm-program.ts';
import { writeServerFolder } from '../../src/release/server-folder.ts';
import {
  BINDING_NAME,
  bindingRecipe,
  packageRoot,
  platformName,
  prebuildsFolder,
} from '../../src/sqlite/binding-path.ts';
import { largeDatabase } from '../pages/databases.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';
import { textOf } from './dockerfile.ts';

/** Of a login there, which has nothing of the tests' own surroundings. */
const PATH = 'PATH=/usr/sbin:/usr/bin:/sbin:/bin';

const { key } = bindingRecipe();
const binding = join(prebuildsFolder(), key, BINDING_NAME);

/** Why none of this can run here. */
function missing(): string | false {
  if (process.env['SQLSYNC_SLOW_TESTS'] !== '1') return 'SQLSYNC_SLOW_TESTS=1 npm test runs it';
  return existsSync(binding) ? false : 'NOT TESTED: npm run build:prebuilt has not been';
}

function missingForRoot(): string | false {
  const why = missing();
  if (why !== false) return why;
  const programs = ['debootstrap', 'dpkg-deb', 'chroot', 'unshare'];
  const found = spawnSync('which', programs, { encoding: 'utf8' }).stdout.trim().split('\n');
  if (platformName() === 'linux-x64' && process.geteuid?.() === 0 && found.length === programs.length)
    return false;
  return `NOT TESTED: it takes Linux on x64, root, and ${programs.join(', ')}`;
}

describe('a bare Debian 12', { skip: missingForRoot() }, () => {
  const folder = tempDir({ after });
  const root = join(folder, 'root');
  const debian = debianFileName('1.2.3', 'amd64');

  before(async () => {
    // What it mounts is gone when it ends, however it ends.
    run('unshare', '--mount', 'debootstrap', '--variant=minbase', 'bookworm', root);
    const server = join(folder, 'sqlsync');
    writeServerFolder(server, { node: nodeProgram('linux-x64'), binding, key });
    await writeManPages(join(server, 'lib', 'node_modules', 'sqlsync-db', 'dist', 'man'));
    run('tar', '-C', folder, '-czf', join(root, 'root', 'sqlsync.tar.gz'), 'sqlsync');
    mkdirSync(join(root, 'packages'));
    writeDebianPackage(join(root, 'packages', debian), {
      root: join(folder, 'package'),
      server,
      version: '1.2.3',
      architecture: 'amd64',
      compression: 'none',
    });
    largeDatabase(join(root, 'root', 'app.db'), 2e7);
  });

  function inside(script: string): string {
    return run('env', '-i', PATH, 'HOME=/root', 'chroot', root, '/bin/sh', '-ec', `cd /root; ${script}`);
  }

  function sameAs(name: string): void {
    assertReplicaOf(join(root, 'root', 'app.db'), join(root, name));
  }

  test('the folder for a server syncs, backs up and restores after it was unpacked', () => {
    assert.equal(inside('for name in node npm cc c++ python3; do command -v $name || true; done'), '');
    inside(`tar -xzf sqlsync.tar.gz
      sqlsync/bin/sqlsync app.db copy.db
      sqlsync/bin/sqlsync init store
      sqlsync/bin/sqlsync backup app.db store
      sqlsync/bin/sqlsync restore store#latest restored.db`);
    for (const name of ['root/copy.db', 'root/restored.db']) sameAs(name);
  });

  test('the Debian package is installed, used, installed again, and leaves nothing when it is removed', () => {
    const without = listOf(root);
    inside(`dpkg --install /packages/${debian}`);
    inside('sqlsync app.db by-package.db; dpkg --verify sqlsync');
    sameAs('root/by-package.db');
    const pages = readdirSync(join(root, 'usr', 'share', 'man', 'man1'));
    assert.ok(pages.includes('sqlsync.1.gz') && pages.includes('sqlsync-restore.1.gz'), pages.join());
    inside(`dpkg --install /packages/${debian}; dpkg --purge sqlsync`);
    const afterwards = listOf(root);
    assert.deepEqual(
      afterwards.filter((name) => !without.includes(name)),
      [],
    );
  });

  test('the steps of the Dockerfile make a service that is healthy once its copy is made', async () => {
    inside(`export TARGETARCH=amd64 VERSION='*'; ${textOf('RUN')}`);
    mkdirSync(join(root, 'srv', 'data'));
    copyFileSync(join(root, 'root', 'app.db'), join(root, 'srv', 'data', 'app.db'));
    writeFileSync(
      join(root, 'etc', 'sqlsync.yaml'),
      'databases:\n  - path: /srv/data/app.db\n    targets:\n      - { replica: /srv/data/copy.db, schedule: 1h }\n',
    );
    const user = `--userspec=${textOf('USER')}`;
    inside(`chown -R ${textOf('USER')} /srv/data`);
    const surroundings = `export ${textOf('ENV')}; cd ${textOf('WORKDIR')}`;
    const words = [
      ...(JSON.parse(textOf('ENTRYPOINT')) as string[]),
      ...(JSON.parse(textOf('CMD')) as string[]),
    ];
    const service = spawn(
      'chroot',
      [user, root, '/bin/sh', '-ec', `${surroundings}; exec ${words.join(' ')}`],
      {
        stdio: ['ignore', 'inherit', 'inherit'],
      },
    );
    const ended = once(service, 'exit');
    try {
      const health = `${surroundings}; ${textOf('HEALTHCHECK').replace(/^CMD /, '')}`;
      const isHealthy = (): boolean =>
        spawnSync('chroot', [user, root, '/bin/sh', '-c', health]).status === 0 &&
        existsSync(join(root, 'srv', 'data', 'copy.db'));
      while (!isHealthy()) {
        assert.deepEqual([service.exitCode, service.signalCode], [null, null]);
        await delay(500);
      }
    } finally {
      service.kill('SIGTERM');
    }
    assert.deepEqual(await ended, [0, null]);
    sameAs('srv/data/copy.db');
  });
});

test(
  'the package that npm packs is installed and runs where there is no compiler',
  { skip: missing() },
  (t) => {
    const folder = tempDir(t);
    const tools = join(folder, 'tools');
    mkdirSync(tools);
    for (const name of ['node', 'npm', 'sh'])
      symlinkSync(run('sh', '-c', `readlink -f "$(command -v ${name})"`).trim(), join(tools, name));
    run('npm', 'pack', '--ignore-scripts', '--silent', '--pack-destination', folder, packageRoot());
    const archive = readdirSync(folder).find((name) => name.endsWith('.tgz')) ?? '';
    const application = join(folder, 'application');
    mkdirSync(application);
    const here = (program: string, ...args: string[]): string => {
      const { status, stdout, stderr, error } = spawnSync(join(tools, program), args, {
        cwd: application,
        encoding: 'utf8',
        env: { ...process.env, PATH: tools },
      });
      assert.equal(status, 0, `${error?.message} ${stderr}`);
      return stdout;
    };
    here('npm', 'install', '--no-audit', '--no-fund', join(folder, archive));
    largeDatabase(join(application, 'a.db'), 1e5);
    here('node', 'node_modules/.bin/sqlsync', 'a.db', 'r.db');
    assertReplicaOf(join(application, 'a.db'), join(application, 'r.db'));
    writeFileSync(
      join(application, 'application.mjs'),
      `import { openDatabase, sync } from 'sqlsync-db';
     await sync({ origin: 'a.db', replica: 'by-library.db' });
     const db = await openDatabase('by-library.db');
     console.log(JSON.stringify(await db.read.values('SELECT count(*) > 0 FROM sqlite_schema')));
     await db.close();`,
    );
    assert.equal(here('node', 'application.mjs'), '[[1]]\n');
    assert.ok(!existsSync(join(application, 'node_modules', 'sqlsync-db', 'build')));
  },
);

function run(program: string, ...args: string[]): string {
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8', maxBuffer: 1e8 });
  assert.equal(status, 0, `${program} ${args.join(' ')}: ${error?.message} ${stderr}`);
  return stdout;
}

/** All files but those that any program may write. */
function listOf(root: string): string[] {
  return run(
    'find',
    root,
    '-xdev',
    '-not',
    '-path',
    `${root}/root/*`,
    '-not',
    '-path',
    `${root}/var/*`,
  ).split('\n');
}
