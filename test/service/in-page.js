/**
 * What the browser tests find out in a page; each page has it as `looks` before anything else runs. Plain JavaScript, since
 * it runs in the browser, and the types of the project have no DOM.
 */
globalThis.looks = {
  /** Texts with less contrast than WCAG 2.2 wants (1.4.3), squares of the map with less (1.4.11), and how many it measured. */
  contrast() {
    const faults = [];
    let measured = 0;
    const measure = (element, text, colour, least) => {
      const background = behind(element);
      const [light, dark] = [luminance(colour), luminance(background)].toSorted((a, b) => b - a);
      const ratio = (light + 0.05) / (dark + 0.05);
      measured++;
      if (ratio < least) faults.push({ text, colour, background, ratio });
    };
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      const element = texts.currentNode.parentElement;
      const text = texts.currentNode.nodeValue.trim();
      if (text === '' || !element.checkVisibility()) continue;
      const { color, fontSize, fontWeight } = getComputedStyle(element);
      const large = Number(fontWeight) >= 700 ? 18.66 : 24;
      measure(element, text.slice(0, 60), color, Number.parseFloat(fontSize) >= large ? 3 : 4.5);
    }
    for (const path of document.querySelectorAll('path'))
      if (path.checkVisibility())
        measure(path, `square ${path.className.baseVal}`, getComputedStyle(path).fill, 3);
    return { faults, measured };
  },

  /** How wide the page is, and what reaches beyond the window. */
  overflow() {
    const beyond = [...document.querySelectorAll('body *')].filter(
      (element) => element.getBoundingClientRect().right > innerWidth + 0.5,
    );
    return {
      width: document.documentElement.scrollWidth,
      beyond: beyond.map((element) => element.outerHTML.slice(0, 100)),
    };
  },

  /** What becomes of a script, a picture and a style of somebody else: the policy of the page must refuse all three. */
  async inject() {
    const refused = [];
    const { promise, resolve } = Promise.withResolvers();
    document.addEventListener('securitypolicyviolation', ({ effectiveDirective }) => {
      refused.push(effectiveDirective);
      if (refused.length === 3) resolve();
    });
    const make = (name, fields) => Object.assign(document.createElement(name), fields);
    document.body.append(
      make('script', { textContent: 'globalThis.hacked = 1' }),
      make('img', { src: 'http://127.0.0.1:9/x.png' }),
      make('style', { textContent: 'body { display: none }' }),
    );
    await promise;
    return { ran: 'hacked' in globalThis, refused };
  },

  openAll() {
    for (const each of document.querySelectorAll('details')) each.open = true;
  },

  isHacked: () => 'hacked' in globalThis,
  elements: () => document.querySelectorAll('*').length,
  hasFocus: (selector) => document.activeElement.matches(selector),
  outline: () => getComputedStyle(document.activeElement).outlineStyle,
};

function luminance(colour) {
  const [r, g, b] = channels(colour).map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** The background of the nearest element that has one. */
function behind(element) {
  for (let each = element; each !== null; each = each.parentElement) {
    const { backgroundColor } = getComputedStyle(each);
    const [, , , alpha = 1] = channels(backgroundColor);
    if (alpha === 1) return backgroundColor;
  }
  return 'rgb(255, 255, 255)';
}

function channels(colour) {
  return colour.match(/[\d.]+/g).map(Number);
}
