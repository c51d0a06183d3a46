/**
 * The queue that a coordinator keeps: who waits, who has the turn, and whether there is contention. Pure: it receives
 * events with their times, and says what to send.
 *
 *     calm ──── somebody enters ────► contended: everybody enters before trying
 *       ◄── nobody waited for a while ──┘
 *
 * SQLite's lock decides; a turn is only a courtesy. So the next member may get a turn although the holder has not left:
 * a holder that does not answer (stopped or busy) or is slow is set aside. At worst two members try at once.
 */

export interface QueueEvents<Member> {
  granted(member: Member, turn: number, othersWait: boolean): void;
  /** Others wait for this turn. A live member answers with {@link TurnQueue.here}. */
  wanted(member: Member, turn: number): void;
  contended(contended: boolean): void;
}

export interface QueueTimes {
  /** How often to ask for a turn that others wait for, in milliseconds. */
  readonly askMs: number;
  /** A member that has not answered for this long is set aside. */
  readonly silentMs: number;
  /** A member that answers but does not leave for this long is set aside. */
  readonly slowMs: number;
  /** Calm again when no member had to wait for this long. */
  readonly calmMs: number;
}

export const QUEUE_TIMES: QueueTimes = { askMs: 25, silentMs: 50, slowMs: 2000, calmMs: 100 };

/** No process has waited for longer; a larger time is an error of its sender. */
const MAX_AGE_US = 600e6;

interface Place<Member> {
  readonly member: Member;
  readonly turn: number;
  readonly sinceUs: number;
}

interface Holder<Member> {
  readonly member: Member;
  readonly turn: number;
  /** When the turn was granted, or when the first waiter came, in microseconds. */
  wantedSinceUs: number;
  /** When the holder was asked, if it has not answered yet. */
  askedUs: number | undefined;
  heardUs: number;
  knowsOthersWait: boolean;
}

export class TurnQueue<Member> {
  readonly #events: QueueEvents<Member>;
  readonly #times: QueueTimes;
  readonly #places: Place<Member>[] = [];
  #holder: Holder<Member> | undefined;
  #contended = false;
  #lastWaitUs = 0;
  #lastTickUs = 0;
  #closedUntilUs: number;

  /**
   * @param closedUntilUs Grants nothing before this time, so that the members who waited at the last coordinator can
   * come back.
   */
  constructor(events: QueueEvents<Member>, times: QueueTimes = QUEUE_TIMES, closedUntilUs = 0) {
    this.#events = events;
    this.#times = times;
    this.#closedUntilUs = closedUntilUs;
  }

  get isContended(): boolean {
    return this.#contended;
  }

  /** All members are back. */
  open(nowUs: number): void {
    this.#closedUntilUs = 0;
    this.#advance(nowUs);
  }

  get length(): number {
    return this.#places.length;
  }

  /** A member has at most one place: entering again gives up the older one. */
  enter(member: Member, turn: number, request: { sinceUs: number; holding: boolean }, nowUs: number): void {
    this.remove(member, nowUs);
    if (!this.#contended) this.#setContended(true, nowUs);
    if (request.holding && this.#holder === undefined) {
      this.#hold(member, turn, nowUs);
      return;
    }
    const sinceUs = Math.min(nowUs, Math.max(request.sinceUs, nowUs - MAX_AGE_US));
    let index = this.#places.length;
    while (index > 0 && (this.#places[index - 1] as Place<Member>).sinceUs > sinceUs) index--;
    this.#places.splice(index, 0, { member, turn, sinceUs });
    this.#advance(nowUs);
    if (this.#places.length > 0) this.#tellHolder(nowUs);
  }

  leave(member: Member, turn: number, nowUs: number): void {
    if (this.#holder?.member === member && this.#holder.turn === turn) {
      this.#holder = undefined;
      this.#advance(nowUs);
    } else {
      this.#removePlace((place) => place.member === member && place.turn === turn);
    }
  }

  /** Removes a member that is gone, with all its places. */
  remove(member: Member, nowUs: number): void {
    this.#removePlace((place) => place.member === member);
    if (this.#holder?.member !== member) return;
    this.#holder = undefined;
    this.#advance(nowUs);
  }

  here(member: Member, turn: number, nowUs: number): void {
    const holder = this.#holder;
    if (holder?.member !== member || holder.turn !== turn) return;
    holder.askedUs = undefined;
    holder.heardUs = nowUs;
  }

  /** Call it every few milliseconds while there is contention. */
  tick(nowUs: number): void {
    const sinceLastTickUs = nowUs - this.#lastTickUs;
    this.#lastTickUs = nowUs;
    if (this.#places.length === 0) {
      if (this.#contended && nowUs - this.#lastWaitUs >= this.#times.calmMs * 1000) {
        this.#setContended(false, nowUs);
      }
      return;
    }
    this.#lastWaitUs = nowUs;
    // If the coordinator itself was held up, an answer may have come without having been read.
    const isLate = sinceLastTickUs > this.#times.silentMs * 1000;
    if (this.#holder !== undefined && !isLate && this.#isToBeSetAside(this.#holder, nowUs)) {
      this.#holder = undefined;
    }
    this.#advance(nowUs);
  }

  #isToBeSetAside(holder: Holder<Member>, nowUs: number): boolean {
    const { askMs, silentMs, slowMs } = this.#times;
    if (nowUs - holder.wantedSinceUs >= slowMs * 1000) return true;
    if (holder.askedUs !== undefined) return nowUs - holder.askedUs >= silentMs * 1000;
    if (nowUs - holder.heardUs >= askMs * 1000) {
      holder.askedUs = nowUs;
      this.#events.wanted(holder.member, holder.turn);
    }
    return false;
  }

  #advance(nowUs: number): void {
    if (this.#holder !== undefined || nowUs < this.#closedUntilUs) return;
    const next = this.#places.shift();
    if (next === undefined) return;
    const holder = this.#hold(next.member, next.turn, nowUs);
    holder.knowsOthersWait = this.#places.length > 0;
    if (holder.knowsOthersWait) this.#lastWaitUs = nowUs;
    this.#events.granted(next.member, next.turn, holder.knowsOthersWait);
  }

  #hold(member: Member, turn: number, nowUs: number): Holder<Member> {
    const times = { wantedSinceUs: nowUs, askedUs: undefined, heardUs: nowUs };
    return (this.#holder = { member, turn, ...times, knowsOthersWait: false });
  }

  #tellHolder(nowUs: number): void {
    this.#lastWaitUs = nowUs;
    const holder = this.#holder;
    if (holder === undefined || holder.knowsOthersWait) return;
    holder.knowsOthersWait = true;
    holder.wantedSinceUs = nowUs;
    holder.askedUs = nowUs;
    this.#events.wanted(holder.member, holder.turn);
  }

  #setContended(contended: boolean, nowUs: number): void {
    this.#contended = contended;
    this.#lastWaitUs = nowUs;
    this.#events.contended(contended);
  }

  #removePlace(matches: (place: Place<Member>) => boolean): void {
    const index = this.#places.findIndex(matches);
    if (index >= 0) this.#places.splice(index, 1);
  }
}
