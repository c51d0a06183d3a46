import { lockBytePage } from '../../pages/page-types.ts';
import type { PageSize } from '../../pages/page-types.ts';
import type { ReadPlan } from '../objects/read-plan.ts';
import { nodeCountOf, NODE_FANOUT } from '../packs/node.ts';
import type { SnapshotTree } from './snapshot-tree.ts';

/** What is requested at a time. Twice as much is on its way, or waits to be read. */
const STEP_BYTES = 10 * 1024 * 1024;

/** The reader keeps the answers of 256 requests: those of two steps, and of nodes, have to fit. */
const STEP_REQUESTS = 64;

/** Pages that are looked at for one step, if their frames are few. */
const MAX_STEP_PAGES = 32 * 1024;

/** The pages below a node of level 1. */
const GROUP_PAGES = NODE_FANOUT * NODE_FANOUT;

/**
 * Requests what a reader of all pages, in order, will need, a few round trips before it does: the nodes of the tree, and
 * the frames of pages with their bases.
 */
export class SnapshotPlan {
  readonly #tree: SnapshotTree;
  readonly #nodes: ReadPlan;
  readonly #pages: ReadPlan;
  readonly #locked: number;
  /** The first page whose frames were not requested yet. */
  #next = 1;
  /** The reader comes here before another step is requested. */
  #turn = 1;

  constructor(
    tree: SnapshotTree,
    pageSize: PageSize,
    { nodes, pages }: { readonly nodes: ReadPlan; readonly pages: ReadPlan },
  ) {
    this.#tree = tree;
    this.#nodes = nodes;
    this.#pages = pages;
    this.#locked = lockBytePage(pageSize);
  }

  /** Called before this page is read. Throws SqlsyncError STORE_* if the tree cannot be read. */
  reach(page: number): void {
    while (page >= this.#turn && this.#next <= this.#tree.pageCount) {
      this.#turn = this.#next;
      this.#requestStep();
    }
  }

  #requestStep(): void {
    const end = Math.min(this.#next + MAX_STEP_PAGES - 1, this.#tree.pageCount);
    for (; this.#next <= end && this.#hasRoom(); this.#next++) {
      const group = (this.#next - 1) / GROUP_PAGES;
      if (group === 0) this.#requestNodes(0);
      // One group ahead: the nodes are there when their pages are looked at.
      if (Number.isInteger(group)) this.#requestNodes(group + 1);
      if (this.#next !== this.#locked) this.#pages.add(this.#tree.pageId(this.#next));
    }
    this.#pages.request();
  }

  #hasRoom(): boolean {
    return this.#pages.bytes < STEP_BYTES && this.#pages.requestCount < STEP_REQUESTS;
  }

  /** Requests the nodes of level 0 that belong to a group of pages, and before the first of 64 groups those above. */
  #requestNodes(group: number): void {
    if (group % NODE_FANOUT === 0) this.#requestLevel(1, group);
    this.#requestLevel(0, group * NODE_FANOUT);
  }

  #requestLevel(level: number, first: number): void {
    if (level >= this.#tree.rootLevel) return;
    const end = Math.min(first + NODE_FANOUT, nodeCountOf(this.#tree.pageCount, level));
    for (let index = first; index < end; index++) this.#nodes.add(this.#tree.nodeId(level, index));
    this.#nodes.request();
  }
}
