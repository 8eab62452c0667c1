'use strict';
// The judgement of a race: the same prompt and seed with speculation and without must give the same text.
const race = (() => {
  const $ = id => document.getElementById(id);
  const LANES = ['race-with', 'race-without'];

  function say(text, cls) {
    $('race-verdict').className = cls || '';
    $('race-verdict').setAttribute('role', cls === 'different' ? 'alert' : 'status');
    $('race-verdict').textContent = text;
  }

  function open() {
    $('race').hidden = false;
    for (const id of LANES) {
      reasoning.remove($(id));
      $(id).replaceChildren();
      $(id + '-speed').textContent = '';
    }
    say('running');
  }

  // Marks the token at this place of the text in `box`; null: a text that is not there.
  function mark(box, place) {
    if (!box) return;
    const block = box.closest('details');
    if (block) block.open = true;
    let end = 0;
    for (const node of box.childNodes) {
      end += node.textContent.length;
      if (end <= place) continue;
      if (node.classList) node.classList.add('differs');
      return;
    }
  }

  function excerpt(text, place) {
    const rest = text.slice(place, place + 24);
    return rest ? `“${rest}${place + 24 < text.length ? '…' : ''}”` : 'nothing';
  }

  // is_thought: a and b are reasoning.
  function say_difference(a, b, is_thought) {
    let place = 0;
    while (place < a.length && a[place] === b[place]) ++place;
    for (const id of LANES) mark(is_thought ? reasoning.find($(id)) : $(id), place);
    const where = `from character ${[...a.slice(0, place)].length + 1} ${is_thought ? 'of the reasoning ' : ''}on: `
      + `${excerpt(a, place)} with speculation, ${excerpt(b, place)} without`;
    const rule = connection.props().accept;
    if (rule && rule !== 'coupled' && Number($('temperature').value) > 0) {
      return say(`Texts differ ${where}. With --accept ${rule} they may: it keeps how likely texts are, not each text. `
        + 'At temperature 0 they must be equal.', 'expected');
    }
    say(`TEXTS DIFFER ${where}. This is a fault: speculation must not change a text. Please report it with model, drafter `
      + 'and prompt.', 'different');
  }

  // with_it, without: what answers.begin() made, filled.
  function judge(with_it, without) {
    if (with_it.thought !== without.thought) return say_difference(with_it.thought, without.thought, true);
    if (with_it.said !== without.said) return say_difference(with_it.said, without.said, false);
    const s = with_it.usage && with_it.usage.speculation;
    say(s && s.drafted > 0
      ? `texts identical · ${(answers.rate(with_it) / answers.rate(without)).toFixed(2)} times as fast`
      : 'texts identical · nothing was drafted', 'same');
  }
  return { open, say, judge, LANES };
})();
