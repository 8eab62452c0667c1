'use strict';
// What a model thinks before it answers: a block above the answer that opens and closes. It is shown, never sent back.
const reasoning = (() => {
  let is_open = true;  // as the reader last chose; new blocks begin so

  const block_of = body => {
    const before = body.previousElementSibling;
    return before && before.classList.contains('reasoning') ? before : null;
  };

  // Where the reasoning of the answer in `body` stands; null without any.
  const find = body => { const block = block_of(body); return block && block.lastElementChild; };

  // The same; a block is made when there is none.
  function place(body) {
    if (block_of(body)) return find(body);
    const block = document.createElement('details');
    block.className = 'reasoning';
    block.open = is_open;
    const heading = document.createElement('summary');
    heading.textContent = 'Reasoning';
    heading.addEventListener('click', () => { is_open = !block.open; });  // a click, or a key; the block follows it
    const text = document.createElement('div');
    text.className = 'thoughts';
    block.append(heading, text);
    body.before(block);
    return text;
  }

  function remove(body) {
    const block = block_of(body);
    if (block) block.remove();
  }
  return { find, place, remove };
})();
