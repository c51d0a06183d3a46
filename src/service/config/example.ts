/** A whole file to begin with; `sqlsync config example` prints it. */
export const EXAMPLE = `# The configuration of \`sqlsync run\`. Check it with \`sqlsync config check\`.
# yaml-language-server: $schema=https://raw.githubusercontent.com/sqlsync/sqlsync/main/docs/config.schema.json

concurrency: 2 # copies at a time

databases:
  # One database with a replica that follows it, and backups with history.
  - path: /srv/app/app.db
    targets:
      - replica: backup@vault:/srv/replicas/app.db
        schedule: follow
      - store: sftp:backup@vault:/srv/store
        password-file: /etc/sqlsync/password
        schedule: '0 3 * * *' # every night at three
        keep: { daily: 7, weekly: 5, monthly: 12 }
        prune: true
        verify: weekly # restores the newest snapshot, and lets SQLite check it
        ping-file: /etc/sqlsync/ping-url

  # All databases of a folder, also those that appear later.
  - folder: /srv/tenants
    pattern: '*.db'
    schedule: 15m
    targets:
      - replica: /backup/tenants/{name}
    hooks:
      failure: logger -t sqlsync "a copy of a tenant failed"

  # A database on another host, fetched every hour.
  - path: deploy@db1:/srv/shop.db
    schedule: 1h
    targets:
      - replica: /backup/shop.db
        options: { max-shrink: 50, bwlimit: 10MB }
`;
