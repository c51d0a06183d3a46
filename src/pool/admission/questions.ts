interface Question<Member> {
  readonly observer: Member;
  /** Who has not told all, and how many frames each may still send. */
  readonly asked: Map<Member, number>;
}

/** As many as the longest text has. */
const MAX_FRAMES = 1000;
/** The oldest questions, which some member did not answer, are forgotten. */
const MAX_OPEN = 1000;

/** Who has not yet told an observer about itself, by the number of the question that all of them got. */
export class Questions<Member> {
  readonly #open = new Map<number, Question<Member>>();
  readonly #answered: (observer: Member) => void;
  #last = 0;

  /** `answered` is called for each observer once all members have told, or are gone. */
  constructor(answered: (observer: Member) => void) {
    this.#answered = answered;
  }

  /** Returns the number of the question. */
  ask(observer: Member, members: readonly Member[]): number {
    this.#last = (this.#last + 1) % 2 ** 32;
    this.#open.set(this.#last, { observer, asked: new Map(members.map((member) => [member, MAX_FRAMES])) });
    for (const oldest of this.#open.keys()) {
      if (this.#open.size <= MAX_OPEN) break;
      this.#open.delete(oldest);
    }
    this.#check(this.#last);
    return this.#last;
  }

  /** Who asked `member` this, and may be gone by now; undefined if the member was not asked, or has told all. */
  observerOf(question: number, member: Member): Member | undefined {
    const open = this.#open.get(question);
    return open?.asked.has(member) === true ? open.observer : undefined;
  }

  /** The member has told a piece. */
  told(question: number, member: Member, isLast: boolean): void {
    const asked = this.#open.get(question)?.asked;
    const left = (asked?.get(member) ?? 0) - 1;
    if (isLast || left <= 0) asked?.delete(member);
    else asked?.set(member, left);
    this.#check(question);
  }

  /** The member is gone. */
  remove(member: Member): void {
    for (const question of this.#open.keys()) this.told(question, member, true);
  }

  #check(question: number): void {
    const open = this.#open.get(question);
    if (open === undefined || open.asked.size > 0) return;
    this.#open.delete(question);
    this.#answered(open.observer);
  }
}
