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
      $(id).replaceChildren();
      $(id + '-speed').textContent = '';
    }
    say('running');
  }

  // Marks the token at this place of the text.
  function mark(lane, place) {
    let end = 0;
    for (const node of lane.childNodes) {
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

  function say_difference(a, b) {
    let place = 0;
    while (place < a.length && a[place] === b[place]) ++place;
    mark($(LANES[0]), place);
    mark($(LANES[1]), place);
    const where = `from character ${[...a.slice(0, place)].length + 1} on: ${excerpt(a, place)} with speculation, `
      + `${excerpt(b, place)} without`;
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
    if (with_it.text !== without.text) return say_difference(with_it.text, without.text);
    const s = with_it.usage && with_it.usage.speculation;
    say(s && s.drafted > 0
      ? `texts identical · ${(answers.rate(with_it) / answers.rate(without)).toFixed(2)} times as fast`
      : 'texts identical · nothing was drafted', 'same');
  }
  return { open, say, judge, LANES };
})();
