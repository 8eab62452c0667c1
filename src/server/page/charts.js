'use strict';
// Small SVG charts: lines over an index, bars, and points on the unit square. Each call draws the whole chart.
const charts = (() => {
  const W = 320, H = 112, L = 34, R = 6, T = 6, B = 16;
  const ns = 'http://www.w3.org/2000/svg';
  const make = (name, attributes, text) => {
    const node = document.createElementNS(ns, name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const short = v => v >= 100 ? v.toFixed(0) : v >= 10 ? v.toFixed(1) : v.toFixed(2);

  function frame(svg, top, labels) {
    svg.setAttribute('viewBox', `0 0 ${W} ${H}`);
    svg.setAttribute('preserveAspectRatio', 'none');
    svg.replaceChildren(
      make('path', { class: 'axis', d: `M${L} ${T}V${H - B}H${W - R}` }),
      make('text', { x: L - 4, y: T + 8, 'text-anchor': 'end' }, short(top)),
      make('text', { x: L - 4, y: H - B, 'text-anchor': 'end' }, '0'));
    if (labels) {
      svg.append(make('text', { x: L, y: H - 4 }, labels[0]),
        make('text', { x: W - R, y: H - 4, 'text-anchor': 'end' }, labels[1]));
    }
  }
  const y = (v, top) => H - B - Math.min(1, Math.max(0, v / top)) * (H - B - T);

  // series: [{values: [number|null, ...], cls}], all of one length.
  function lines(svg, series, labels) {
    const all = series.flatMap(s => s.values).filter(v => v !== null && isFinite(v));
    const top = Math.max(1e-9, ...all) * 1.1;
    frame(svg, top, labels);
    for (const s of series) {
      const n = Math.max(1, s.values.length - 1);
      let d = '', pen = 'M';
      s.values.forEach((v, i) => {
        if (v === null || !isFinite(v)) { pen = 'M'; return; }
        d += `${pen}${(L + (W - L - R) * i / n).toFixed(1)} ${y(v, top).toFixed(1)}`;
        pen = 'L';
      });
      svg.append(make('path', { class: s.cls, d }));
    }
  }

  // points: [[x, y], ...] with x ascending; joined by lines.
  function curve(svg, points, labels) {
    if (!points.length) { frame(svg, 1, labels); return; }
    const right = Math.max(...points.map(p => p[0])), top = Math.max(...points.map(p => p[1])) * 1.1;
    frame(svg, top, labels);
    const at = p => `${(L + (W - L - R) * p[0] / right).toFixed(1)} ${y(p[1], top).toFixed(1)}`;
    svg.append(make('path', { class: 'a', d: 'M' + points.map(at).join('L') }));
  }

  function bars(svg, values) {
    frame(svg, 1, values.length ? ['1', String(values.length)] : null);
    const step = (W - L - R) / Math.max(1, values.length);
    values.forEach((v, i) => {
      if (v === null) return;
      svg.append(make('rect', { class: 'bar', x: L + step * (i + .15), y: y(v, 1), width: step * .7, height: H - B - y(v, 1) }));
    });
  }

  // Points (predicted, observed, how many), joined, against the diagonal; the area of a dot tells how many.
  function unit(svg, points) {
    frame(svg, 1, ['predicted 0', '1']);
    svg.append(make('path', { class: 'axis', d: `M${L} ${H - B}L${W - R} ${T}` }));
    if (!points.length) return;
    const x = v => L + (W - L - R) * v, most = Math.max(...points.map(p => p[2]));
    svg.append(make('path', { class: 'a', d: 'M' + points.map(p => `${x(p[0]).toFixed(1)} ${y(p[1], 1).toFixed(1)}`).join('L') }));
    for (const [px, py, n] of points) {
      const dot = make('circle', { class: 'dot', r: 1.5 + 4 * Math.sqrt(n / most), cx: x(px), cy: y(py, 1) });
      dot.append(make('title', {}, `predicted ${px.toFixed(2)}, observed ${py.toFixed(2)}, ${n} drafts`));
      svg.append(dot);
    }
  }
  return { lines, curve, bars, unit };
})();
