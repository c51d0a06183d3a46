import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { describe, test } from 'node:test';
import { EMPTY_HASH, encodePath, Signer } from '../../src/backup/backends/s3/signature.ts';
import type { RequestToSign } from '../../src/backup/backends/s3/signature.ts';

/** The keys and the time of AWS's examples in "Signature Calculations for the Authorization Header". */
const KEYS = {
  accessKeyId: 'AKIAIOSFODNN7EXAMPLE',
  secretAccessKey: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY',
};
const TIME = new Date('2013-05-24T00:00:00Z');
const HOST = { host: 'examplebucket.s3.amazonaws.com', 'x-amz-date': '20130524T000000Z' };
const EMPTY = { 'x-amz-content-sha256': EMPTY_HASH };
const WELCOME = createHash('sha256').update('Welcome to Amazon S3.').digest('hex');

const EXAMPLES: readonly (RequestToSign & { readonly name: string; readonly signature: string })[] = [
  {
    name: 'GET of a range',
    method: 'GET',
    path: '/test.txt',
    query: [],
    headers: { ...HOST, ...EMPTY, range: 'bytes=0-9' },
    payloadHash: EMPTY_HASH,
    signature: 'f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41',
  },
  {
    name: 'PUT with a name to encode',
    method: 'PUT',
    path: encodePath('/test$file.text'),
    query: [],
    headers: {
      ...HOST,
      date: 'Fri, 24 May 2013 00:00:00 GMT',
      'x-amz-storage-class': 'REDUCED_REDUNDANCY',
      'x-amz-content-sha256': WELCOME,
    },
    payloadHash: WELCOME,
    signature: '98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd',
  },
  {
    name: 'GET with a query without a value',
    method: 'GET',
    path: '/',
    query: [['lifecycle', '']],
    headers: { ...HOST, ...EMPTY },
    payloadHash: EMPTY_HASH,
    signature: 'fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543',
  },
  {
    name: 'LIST',
    method: 'GET',
    path: '/',
    query: [
      ['prefix', 'J'],
      ['max-keys', '2'],
    ],
    headers: { ...HOST, ...EMPTY },
    payloadHash: EMPTY_HASH,
    signature: '34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7',
  },
];

/** The keys, the time and the service of AWS's test suite for Signature Version 4. */
const SUITE_KEYS = {
  accessKeyId: 'AKIDEXAMPLE',
  secretAccessKey: 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY',
};
const SUITE_TIME = new Date('2015-08-30T12:36:00Z');
const SUITE_HEADERS = { host: 'example.amazonaws.com', 'x-amz-date': '20150830T123600Z' };

const VECTORS: readonly (Partial<RequestToSign> & { readonly name: string; readonly signature: string })[] = [
  { name: 'get-vanilla', signature: '5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31' },
  {
    name: 'get-vanilla-query-order-key-case',
    query: [
      ['Param2', 'value2'],
      ['Param1', 'value1'],
    ],
    signature: 'b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500',
  },
  {
    name: 'get-unreserved',
    path: '/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz',
    signature: '07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f',
  },
  {
    name: 'post-vanilla',
    method: 'POST',
    signature: '5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b',
  },
];

describe('the signature', () => {
  for (const { name, signature, ...request } of EXAMPLES) {
    test(`a request is signed as in AWS's example: ${name}`, () => {
      const header = new Signer().authorization(request, KEYS, 'us-east-1', TIME);
      assert.equal(/Signature=(.*)/.exec(header)?.[1], signature);
      const names = Object.keys(request.headers).toSorted().join(';');
      assert.ok(
        header.startsWith(
          'AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request',
        ),
      );
      assert.ok(header.includes(`SignedHeaders=${names},`));
    });
  }

  for (const { name, signature, ...some } of VECTORS) {
    test(`a request is signed as in AWS's test suite: ${name}`, () => {
      const request = {
        method: 'GET',
        path: '/',
        query: [],
        headers: SUITE_HEADERS,
        payloadHash: EMPTY_HASH,
        ...some,
      };
      const header = new Signer('service').authorization(request, SUITE_KEYS, 'us-east-1', SUITE_TIME);
      assert.equal(/Signature=(.*)/.exec(header)?.[1], signature);
    });
  }

  test('a signer that kept the key of a day makes another for other keys, regions and days', () => {
    const signer = new Signer();
    const [first] = EXAMPLES;
    assert.ok(first);
    const others = [
      [KEYS, 'us-east-1', TIME],
      [{ ...KEYS, secretAccessKey: 'other' }, 'us-east-1', TIME],
      [KEYS, 'eu-central-1', TIME],
      [KEYS, 'us-east-1', new Date('2013-05-25T00:00:00Z')],
    ] as const;
    for (const [keys, region, time] of [...others, ...others]) {
      const fresh = new Signer().authorization(first, keys, region, time);
      assert.equal(signer.authorization(first, keys, region, time), fresh);
    }
  });
});
