/** True for the address of a store that is no folder of this host: `s3:…` or `sftp:…`. Such a folder is `./s3:…`. */
export function isElsewhere(text: string): boolean {
  return /^s(?:3|ftp):/.test(text);
}
