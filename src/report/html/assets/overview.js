// Layers by heads: a thumbnail of every head, by place or sorted by a score.
import { element, short } from './tokens.js';

export class Overview {
  constructor(app) {
    this.app = app;
    this.sorts = element('div', { className: 'chips', role: 'group', 'aria-label': 'Sort heads by' });
    this.meaning = element('p', { className: 'meaning' });
    this.grid = element('div', { className: 'grid' });
    this.root = element(
      'section',
      { className: 'overview', 'aria-label': 'All heads' },
      element('div', { className: 'bar' }, element('span', { className: 'lead' }, 'Sort heads by'), this.sorts),
      this.meaning,
      this.grid,
    );
    const choices = [{ id: 'place', title: 'Layer and head' }, ...app.data.scores];
    for (const { id, title } of choices) {
      this.sorts.append(
        element('button', { type: 'button', 'data-sort': id, onclick: () => app.set({ sort: id }) }, title),
      );
    }
    // A thumbnail is painted when it is about to be seen.
    this.seen = new IntersectionObserver(
      (entries) => {
        for (const { isIntersecting, target } of entries) {
          if (isIntersecting) {
            this.seen.unobserve(target);
            this.paint(target);
          }
        }
      },
      { root: null, rootMargin: '400px' },
    );
  }

  show() {
    const { app } = this;
    const { data, state } = app;
    for (const button of this.sorts.children) button.setAttribute('aria-pressed', String(button.dataset.sort === state.sort));
    const index = data.scores.findIndex((score) => score.id === state.sort);
    const score = data.scores[index];
    const wanted = [state.sort, state.maps].join();
    if (this.shown !== wanted) {
      this.shown = wanted;
      this.build(index, score);
    }
    const { source } = app;
    const kept = state.hide && data.variants[state.maps].heads.some(({ layer, head }) => !source.holds(state.maps, layer, head));
    const also = kept ? ' Of heads whose rows are not in this file the first columns are only left blank.' : '';
    this.meaning.textContent = score
      ? `${score.meaning} Highest first.${also}`
      : 'Each picture is one head: a row for each token that looks, a column for each token it can look at; bright is much attention. Choose one to open it.' + also;
    const look = app.lookKey();
    if (this.look !== look) {
      this.look = look;
      for (const button of this.grid.querySelectorAll('button')) {
        if (button.dataset.painted) this.paint(button);
      }
    }
    for (const button of this.grid.querySelectorAll('[aria-current]')) button.removeAttribute('aria-current');
    this.grid.querySelector(`[data-at="${state.layer}.${state.head}"]`)?.setAttribute('aria-current', 'true');
  }

  build(index, score) {
    const { app } = this;
    const heads = app.data.variants[app.state.maps].heads.map((head, place) => ({ ...head, place }));
    this.grid.replaceChildren();
    let count = 0;
    const button = (head) => {
      const value = score ? head.scores[index] : null;
      const made = element(
        'button',
        {
          type: 'button',
          className: 'thumb',
          title: this.tip(head),
          'data-at': `${head.layer}.${head.head}`,
          onclick: () => app.set({ view: 'head', layer: head.layer, head: head.head }),
        },
        element('span', { className: 'unseen' }, 'Head '),
        element('canvas', { width: app.data.overview_side, height: app.data.overview_side, 'aria-hidden': 'true' }),
        element(
          'span',
          { className: 'caption' },
          element('span', {}, `${head.layer}.${head.head}`),
          ' ',
          score && element('strong', {}, short(value, score.unit)),
        ),
      );
      made.dataset.place = head.place;
      // The first ones at once, so that nothing flickers.
      if (count++ < 150) this.paint(made);
      else this.seen.observe(made);
      return made;
    };
    if (score) {
      const value = (head) => head.scores[index] ?? -1;
      heads.sort((a, b) => value(b) - value(a) || a.place - b.place);
      this.grid.className = 'grid sorted';
      if (heads.every((head) => head.scores[index] === null)) {
        this.grid.append(element('p', { className: 'meaning' }, 'This text repeats no token, so no head has this score. Try a text in which something comes twice.'));
      }
      this.grid.append(...heads.map(button));
      return;
    }
    this.grid.className = 'grid placed';
    const layers = [...new Set(heads.map((head) => head.layer))];
    for (const layer of layers) {
      this.grid.append(
        element(
          'div',
          { className: 'layer', role: 'group', 'aria-label': `Layer ${layer}` },
          element('span', { className: 'name' }, `Layer ${layer}`),
          ...heads.filter((head) => head.layer === layer).map(button),
        ),
      );
    }
  }

  tip(head) {
    const lines = this.app.data.scores.map((score, i) => `${score.title}: ${short(head.scores[i], score.unit)}`);
    return `Layer ${head.layer}, head ${head.head}\n${lines.join('\n')}`;
  }

  paint(button) {
    button.dataset.painted = '1';
    const canvas = button.querySelector('canvas');
    this.app.paintPicture(canvas, this.app.state.maps, Number(button.dataset.place));
  }

  // What stands on the screen, as a scene for export.
  exported(Scene) {
    const box = this.grid.getBoundingClientRect();
    const scene = new Scene(Math.ceil(box.width) + 24, Math.ceil(box.height) + 56);
    const { ink, data } = this.app;
    scene.text(`${data.model.name}: ${this.meaning.textContent}`, 12, 24, { fill: ink.text, size: 13 });
    for (const thumb of this.grid.querySelectorAll('.thumb')) {
      if (!thumb.dataset.painted) this.paint(thumb);
      const canvas = thumb.querySelector('canvas');
      const at = canvas.getBoundingClientRect();
      scene.picture(canvas, at.left - box.left + 12, at.top - box.top + 44, at.width, at.height);
      const caption = [...thumb.querySelector('.caption').children].map((part) => part.textContent).join('   ');
      scene.text(caption, at.left - box.left + 12, at.bottom - box.top + 57, { fill: ink.text, size: 11 });
    }
    return scene;
  }
}
