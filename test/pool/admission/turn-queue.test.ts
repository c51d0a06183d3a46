import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { QUEUE_TIMES, TurnQueue } from '../../../src/pool/admission/turn-queue.ts';

const MS = 1000;

/** A queue of named members with a clock of its own, and its messages. */
class Scene {
  readonly said: string[] = [];
  readonly queue: TurnQueue<string>;
  nowUs = 1e9;

  constructor(closedForMs = 0) {
    this.queue = new TurnQueue<string>(
      {
        granted: (member, turn, othersWait) =>
          this.said.push(`granted ${member} ${turn}${othersWait ? ' others wait' : ''}`),
        wanted: (member, turn) => this.said.push(`wanted ${member} ${turn}`),
        contended: (contended) => this.said.push(contended ? 'contended' : 'calm'),
      },
      QUEUE_TIMES,
      closedForMs > 0 ? this.nowUs + closedForMs * MS : 0,
    );
  }

  enter(member: string, turn = 1, sinceUs: number = this.nowUs, holding = false): void {
    this.queue.enter(member, turn, { sinceUs, holding }, this.nowUs);
  }

  leave(member: string, turn = 1): void {
    this.queue.leave(member, turn, this.nowUs);
  }

  pass(ms: number, answering: readonly string[] = []): void {
    for (let passed = 0; passed < ms; passed += QUEUE_TIMES.askMs) {
      this.nowUs += QUEUE_TIMES.askMs * MS;
      this.queue.tick(this.nowUs);
      for (const member of answering) this.queue.here(member, 1, this.nowUs);
    }
  }

  /** Its messages since the last call. */
  heard(): string[] {
    return this.said.splice(0);
  }
}

describe('a queue of turns', () => {
  it('the turn queue grants one turn after the other, in the order of their time, and says when others wait', () => {
    const scene = new Scene();
    scene.enter('a');
    assert.deepEqual(scene.heard(), ['contended', 'granted a 1']);
    scene.enter('c', 1, scene.nowUs - 1);
    scene.enter('b', 1, scene.nowUs - 2);
    assert.deepEqual(scene.heard(), ['wanted a 1']);
    scene.leave('a');
    scene.leave('b');
    assert.deepEqual(scene.heard(), ['granted b 1 others wait', 'granted c 1']);
  });

  it('the turn queue ignores the end of a turn that is over, and of one that never was', () => {
    const scene = new Scene();
    scene.enter('a', 7);
    scene.enter('b');
    scene.heard();
    scene.leave('a', 6);
    scene.leave('c');
    assert.deepEqual(scene.heard(), []);
  });

  it('a member that claims to have waited for ever gets no more than the first place', () => {
    const scene = new Scene();
    scene.enter('a');
    scene.enter('b', 1, 0);
    scene.enter('c', 1, scene.nowUs + 1e12);
    scene.enter('d');
    scene.heard();
    for (const member of ['a', 'b', 'c']) scene.leave(member);
    assert.deepEqual(scene.heard(), ['granted b 1 others wait', 'granted c 1 others wait', 'granted d 1']);
  });

  it('the turn queue sets aside a holder that does not answer', () => {
    const scene = new Scene();
    scene.enter('a');
    scene.enter('b');
    scene.pass(QUEUE_TIMES.askMs);
    assert(!scene.heard().includes('granted b 1'));
    scene.pass(QUEUE_TIMES.silentMs + QUEUE_TIMES.askMs);
    assert.deepEqual(scene.heard(), ['granted b 1']);
    scene.enter('c');
    scene.leave('a');
    assert.deepEqual(scene.heard(), ['wanted b 1'], 'the turn is no longer a’s to hand on');
  });

  it('the turn queue leaves a holder that answers the turn for longer, but not for ever', () => {
    const scene = new Scene();
    scene.enter('a');
    scene.enter('b');
    scene.pass(QUEUE_TIMES.slowMs - QUEUE_TIMES.askMs, ['a']);
    assert(!scene.heard().includes('granted b 1'));
    scene.pass(QUEUE_TIMES.askMs, ['a']);
    assert(scene.heard().includes('granted b 1'));
  });

  it('the turn queue blames no holder for the time in which the coordinator itself was held up', () => {
    const scene = new Scene();
    scene.enter('a');
    scene.enter('b');
    scene.pass(QUEUE_TIMES.askMs);
    scene.nowUs += 1e6;
    scene.heard();
    scene.queue.tick(scene.nowUs);
    scene.queue.here('a', 1, scene.nowUs);
    scene.pass(QUEUE_TIMES.askMs, ['a']);
    assert(!scene.heard().includes('granted b 1'));
  });

  it('the turn queue is calm when nobody has had to wait for a while', () => {
    const scene = new Scene();
    scene.enter('a');
    scene.enter('b');
    scene.pass(QUEUE_TIMES.calmMs * 2, ['a']);
    assert(!scene.heard().includes('calm'));
    scene.leave('a');
    scene.pass(QUEUE_TIMES.calmMs);
    assert.deepEqual(scene.heard(), ['granted b 1', 'calm']);
    scene.leave('b');
    scene.enter('a', 2);
    assert.deepEqual(scene.heard(), ['contended', 'granted a 2']);
  });

  it('the turn queue waits for those who waited at the last coordinator, and keeps their order and their turn', () => {
    const scene = new Scene(15);
    scene.enter('c', 1, scene.nowUs - 10);
    scene.enter('b', 1, scene.nowUs - 20);
    assert.deepEqual(scene.heard(), ['contended']);
    scene.enter('a', 1, scene.nowUs - 30, true);
    scene.pass(QUEUE_TIMES.askMs, ['a']);
    assert(!scene.heard().some((line) => line.startsWith('granted')));
    scene.leave('a');
    scene.leave('b');
    assert.deepEqual(scene.heard(), ['granted b 1 others wait', 'granted c 1']);
  });

  it('the turn queue keeps these rules in any history', () => {
    const member = fc.constantFrom('a', 'b', 'c', 'd', 'e');
    const step = fc.oneof(
      fc.record({ type: fc.constantFrom('enter', 'leave', 'gone', 'here'), member }),
      fc.record({ type: fc.constant('pass'), member }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const scene = new Scene();
        let waiting: string[] = [];
        const holders = new Set<string>();
        for (const { type, member: who } of steps) {
          scene.nowUs += 10;
          if (type === 'enter') waiting = [...waiting.filter((other) => other !== who), who];
          if (type !== 'here' && type !== 'pass') holders.delete(who);
          if (type === 'enter') scene.enter(who);
          else if (type === 'leave') scene.leave(who);
          else if (type === 'gone') scene.queue.remove(who, scene.nowUs);
          else if (type === 'here') scene.queue.here(who, 1, scene.nowUs);
          else scene.pass(QUEUE_TIMES.askMs);
          if (type === 'leave' || type === 'gone') waiting = waiting.filter((other) => other !== who);
          for (const line of scene.heard().filter((said) => said.startsWith('granted'))) {
            const granted = line.split(' ')[1] as string;
            assert.equal(granted, waiting.shift(), 'first come, first served');
            if (type !== 'pass') assert.equal(holders.size, 0, 'one at a time');
            holders.clear();
            holders.add(granted);
          }
          assert.equal(scene.queue.length, waiting.length);
          if (waiting.length > 0) assert.equal(holders.size, 1, 'nobody waits for nothing');
        }
      }),
      { numRuns: 300 },
    );
  });
});
