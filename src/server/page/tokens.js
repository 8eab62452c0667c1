'use strict';
// Tokens of an answer: shaded by how they came, with facts that pointer, finger and keyboard bring up.
const tokens = (() => {
  const tip = document.getElementById('tip');
  const ORIGINS = { accepted: 'accepted draft', correction: 'correction: the draft was another',
    bonus: 'bonus after a full run', plain: 'plain' };
  let shown = null;  // the token whose facts are shown

  function facts_of(token, place) {
    const facts = [ORIGINS[token.origin] || token.origin];
    if (place) facts.push(`place ${place} of its block`);
    if (token.source === 'lookup') facts.push('proposed by look-up');
    for (const [key, name] of [['draft_probability', 'draft probability'], ['confidence', 'confidence'],
      ['target_probability', "the model's probability"]]) {
      if (typeof token[key] === 'number') facts.push(`${name} ${token[key].toFixed(2)}`);
    }
    return facts.join('\n');
  }

  // Adds the token to the text in `body`. One token of each text is in the tab order, the first to begin with.
  function append(body, token) {
    const place = token.draft_idx >= 0 ? token.draft_idx + 1 : 0;
    const node = document.createElement('span');
    node.className = 't ' + token.origin;
    if (token.origin === 'accepted') node.classList.add('d' + Math.min(place, 4));
    if (token.source === 'lookup') node.classList.add('lookup');
    node.textContent = token.text;
    node.dataset.tip = facts_of(token, place);
    const is_first = !body.querySelector('[data-tip]');
    node.tabIndex = is_first ? 0 : -1;
    if (is_first) {
      body.setAttribute('role', 'group');
      const what = body.closest('.reasoning') ? 'Reasoning' : 'Answer';
      body.setAttribute('aria-label', what + '. Arrow keys go from token to token.');
    }
    body.append(node);
  }

  // --- facts of one token ---
  function place_tip() {
    if (!shown) return;
    const box = shown.getBoundingClientRect(), own = tip.getBoundingClientRect();
    tip.style.left = Math.max(4, Math.min(box.left, innerWidth - own.width - 4)) + 'px';
    tip.style.top = (box.bottom + own.height + 8 < innerHeight ? box.bottom + 4 : box.top - own.height - 4) + 'px';
  }

  function show(node) {
    if (shown) shown.removeAttribute('aria-describedby');
    shown = node;
    tip.hidden = !node;
    if (!node) return;
    tip.textContent = node.dataset.tip;
    node.setAttribute('aria-describedby', 'tip');
    place_tip();
  }

  const token_at = target => (target && target.closest ? target.closest('[data-tip]') : null);
  // A pointer that leaves gives way to the token that has the keyboard.
  const point = event => show(token_at(event.target) || token_at(document.activeElement));
  document.addEventListener('pointerover', point);
  document.addEventListener('pointerdown', event => show(token_at(event.target)));
  document.addEventListener('scroll', place_tip, true);
  addEventListener('resize', place_tip);
  document.addEventListener('focusin', event => {
    const node = token_at(event.target);
    if (!node) return;
    const before = node.parentNode.querySelector('[data-tip][tabindex="0"]');
    if (before) before.tabIndex = -1;
    node.tabIndex = 0;
    show(node);
  });
  document.addEventListener('focusout', event => { if (token_at(event.target) === shown) show(null); });

  // --- keyboard ---
  const middle = box => (box.left + box.right) / 2;

  // The token of the next line in this direction (-1: above, 1: below) that is nearest sideways; null at the edge.
  function in_next_line(all, at, direction) {
    const from = all[at].getBoundingClientRect();
    let best = null, line = null, least = Infinity;
    for (let i = at + direction; i >= 0 && i < all.length; i += direction) {
      const box = all[i].getBoundingClientRect();
      const is_beyond = direction > 0 ? box.top >= from.bottom - 1 : box.bottom <= from.top + 1;
      if (!is_beyond) continue;
      if (line === null) line = box.top;
      if (Math.abs(box.top - line) > box.height / 2) break;  // one line further
      const distance = Math.abs(middle(box) - middle(from));
      if (distance < least) [best, least] = [all[i], distance];
    }
    return best;
  }

  function target_of(key, node) {
    const all = [...node.parentNode.querySelectorAll('[data-tip]')];
    const at = all.indexOf(node);
    switch (key) {
      case 'ArrowRight': return all[at + 1];
      case 'ArrowLeft': return all[at - 1];
      case 'ArrowDown': return in_next_line(all, at, 1);
      case 'ArrowUp': return in_next_line(all, at, -1);
      case 'Home': return all[0];
      case 'End': return all[all.length - 1];
      default: return undefined;
    }
  }

  document.addEventListener('keydown', event => {
    if (event.key === 'Escape') show(null);
    const node = token_at(document.activeElement);
    if (!node || event.ctrlKey || event.altKey || event.metaKey) return;
    const target = target_of(event.key, node);
    if (target === undefined && !['ArrowRight', 'ArrowLeft'].includes(event.key)) return;
    event.preventDefault();  // the text must not scroll under the keys
    if (target) target.focus();
  });

  return { append };
})();
